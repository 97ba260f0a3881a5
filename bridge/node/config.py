"""The files and the command line that a node is started with."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from bridge.errors import SettingsError
from bridge.node.java import Java
from bridge.node.paths import NodePaths
from bridge.node.recipe import Recipe

_HEAP = "1g"

# Plain text into one file that rolls: a node that is left running for months must not fill the disk.
_LOGGING = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {logs}/node.log
appender.file.filePattern = {logs}/node-%i.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d{{ISO8601}}][%-5p][%c{{1.}}] %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""

_JVM = (
    "-Xss1m",
    "-Djava.awt.headless=true",
    "-Dfile.encoding=UTF-8",
    "-Djna.nosys=true",
    "-XX:-OmitStackTraceInFastThrow",
    "-XX:+ExitOnOutOfMemoryError",
    # As both products have it: else garbage of a quiet node stays above what its memory breaker allows, and the node
    # refuses every request, so that nothing makes it collect.
    "-XX:+UseG1GC",
    "-XX:G1ReservePercent=25",
    "-XX:InitiatingHeapOccupancyPercent=30",
    "-Dio.netty.noUnsafe=true",
    "-Dio.netty.noKeySetOptimization=true",
    "-Dio.netty.recycler.maxCapacityPerThread=0",
    "-Dlog4j.shutdownHookEnabled=false",
    "-Dlog4j2.disable.jmx=true",
)


def settings(recipe: Recipe, paths: NodePaths, port: int) -> dict[str, str]:
    """The node's settings: one node, loopback only, room to work on a laptop's disk."""
    base = {
        "cluster.name": "neural-sparse-bridge",
        "node.name": "bridge",
        "path.data": str(paths.data / "data"),
        "path.logs": str(paths.logs),
        "network.host": "127.0.0.1",
        "http.port": str(port),
        # Nobody talks to it there, so any free port will do.
        "transport.port": "0",
        "discovery.type": "single-node",
        # The stock watermarks are percentages: on a large disk they stop writes with 50 GB still free.
        # Absolute ones keep the protection against a disk that is really full.
        "cluster.routing.allocation.disk.watermark.low": "500mb",
        "cluster.routing.allocation.disk.watermark.high": "300mb",
        "cluster.routing.allocation.disk.watermark.flood_stage": "150mb",
    }
    return {**base, **dict(recipe.settings)}


def write_config(recipe: Recipe, paths: NodePaths, port: int) -> None:
    """Write the settings and logging files into a new config folder; ours, so written at each start."""
    paths.config.mkdir()
    lines = [f"{key}: {_yaml(value)}" for key, value in settings(recipe, paths, port).items()]
    (paths.config / f"{recipe.product}.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    logging = _LOGGING.format(logs=paths.logs)
    (paths.config / "log4j2.properties").write_text(logging, encoding="utf-8")


def marker(recipe: Recipe, paths: NodePaths) -> str:
    """The word of the command line that tells this node from every other process."""
    return f"-D{recipe.path_property}.path.conf={paths.config}"


def command(recipe: Recipe, paths: NodePaths, home: Path, java: Java, heap: str) -> list[str]:
    """The whole command line."""
    temporary = paths.data / "tmp"
    words = {
        "home": str(home),
        "data": str(paths.data),
        "agent": str(home / "agent" / _agent_jar(recipe)),
    }
    return [
        str(java.executable),
        f"-Xms{heap}",
        f"-Xmx{heap}",
        *_JVM,
        f"-Djava.io.tmpdir={temporary}",
        f"-Djna.tmpdir={temporary}",
        f"-XX:ErrorFile={paths.logs}/java-error-%p.log",
        *(flag.format(**words) for flag in recipe.flags),
        f"-D{recipe.path_property}.path.home={home}",
        marker(recipe, paths),
        "-cp",
        f"{home}/lib/*",
        recipe.main_class,
    ]


def environment(paths: NodePaths) -> dict[str, str]:
    """A small environment: JAVA_TOOL_OPTIONS and its kin of the caller must not change the node."""
    return {
        "PATH": os.defpath,
        "HOME": str(paths.data),
        "LANG": "C.UTF-8",
        "LIBFFI_TMPDIR": str(paths.data / "tmp"),
        "TMPDIR": str(paths.data / "tmp"),
    }


def heap_size(environ: Mapping[str, str]) -> str:
    """BRIDGE_NODE_HEAP (such as 512m or 2g), else 1g. Raises `SettingsError`."""
    named = environ.get("BRIDGE_NODE_HEAP", "").strip()
    if not named:
        return _HEAP
    if not re.fullmatch(r"[1-9]\d*[mMgG]", named):
        raise SettingsError(f"BRIDGE_NODE_HEAP is {named!r}; write a size such as 512m or 2g")
    return named.lower()


def _agent_jar(recipe: Recipe) -> str:
    if not recipe.agent:
        return ""
    _, artifact, version = recipe.agent[0].split(":")
    return f"{artifact}-{version}.jar"


def _yaml(value: str) -> str:
    if value.startswith("["):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
