"""The engines that the contract tests run against, put together by the machinery of `bridge.node`.

Elasticsearch 9.2.0 is a test node only: its main class and the parser of its `sparse_vector` query are
ours (`java/`), over the server's own field type and query builder, because the stock ones are not in
the jars that can be had.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bridge.node.recipe import OPENSEARCH, Module, Recipe

_LOCKS = Path(__file__).with_name("locks")

# Engines of Java 17 still have a security manager, and a module's own policy is not part of its jar.
_NETTY_POLICY = """\
grant codeBase "${codebase.netty-common}" {
  permission java.io.FilePermission "/proc/sys/net/core/somaxconn", "read";
  permission java.net.SocketPermission "*", "accept,connect";
  permission java.lang.RuntimePermission "setContextClassLoader";
  permission java.lang.RuntimePermission "getClassLoader";
};
grant codeBase "${codebase.netty-transport}" {
  permission java.util.PropertyPermission "sun.nio.ch.bugLevel", "write";
};
"""
_REINDEX_POLICY = """\
grant {
  permission java.net.SocketPermission "*", "connect";
  permission java.lang.RuntimePermission "accessDeclaredMembers";
};
"""
_PAINLESS_POLICY = """\
grant {
  permission java.lang.RuntimePermission "createClassLoader";
  permission java.lang.RuntimePermission "getClassLoader";
};
"""


def _opensearch_2(version: str) -> Recipe:
    plugin = "org.opensearch.plugin"
    return Recipe(
        name=f"opensearch-{version}",
        product="opensearch",
        version=version,
        lock=_LOCKS / f"opensearch-{version}.lock.json",
        roots=(f"org.opensearch:opensearch:{version}",),
        lib=(
            "org.apache.logging.log4j:log4j-core:2.21.0",
            "net.java.dev.jna:jna:5.13.0",
            f"org.opensearch:opensearch-plugin-classloader:{version}",
            "org.locationtech.spatial4j:spatial4j:0.7",
            "org.locationtech.jts:jts-core:1.15.0",
        ),
        modules=(
            Module(
                "transport-netty4",
                f"{plugin}:transport-netty4-client:{version}",
                "org.opensearch.transport.Netty4Plugin",
                policy=_NETTY_POLICY,
            ),
            Module(
                "mapper-extras",
                f"{plugin}:mapper-extras-client:{version}",
                "org.opensearch.index.mapper.MapperExtrasPlugin",
            ),
            Module(
                "lang-painless",
                f"{plugin}:lang-painless:{version}",
                "org.opensearch.painless.PainlessPlugin",
                policy=_PAINLESS_POLICY,
            ),
            Module(
                "reindex",
                f"{plugin}:reindex-client:{version}",
                "org.opensearch.index.reindex.ReindexPlugin",
                policy=_REINDEX_POLICY,
            ),
        ),
        plugins=(f"{plugin}:opensearch-knn:{version}.0", f"{plugin}:neural-search:{version}.0"),
        main_class="org.opensearch.bootstrap.OpenSearch",
        java=(17, 17),
        descriptor_java="11",
        flags=(
            "-Djava.security.manager=allow",
            "-Dopensearch.distribution.type=tar",
            "-Dopensearch.bundled_jdk=false",
        ),
    )


def _elasticsearch_7(version: str) -> Recipe:
    plugin = "org.elasticsearch.plugin"
    return Recipe(
        name=f"elasticsearch-{version}",
        product="elasticsearch",
        version=version,
        lock=_LOCKS / f"elasticsearch-{version}.lock.json",
        roots=(f"org.elasticsearch:elasticsearch:{version}",),
        lib=(f"org.elasticsearch:elasticsearch-plugin-classloader:{version}",),
        modules=(
            Module(
                "transport-netty4",
                f"{plugin}:transport-netty4-client:{version}",
                "org.elasticsearch.transport.Netty4Plugin",
                policy=_NETTY_POLICY,
            ),
            Module(
                "mapper-extras",
                f"{plugin}:mapper-extras-client:{version}",
                "org.elasticsearch.index.mapper.MapperExtrasPlugin",
            ),
            Module(
                "reindex",
                f"{plugin}:reindex-client:{version}",
                "org.elasticsearch.reindex.ReindexPlugin",
                policy=_REINDEX_POLICY,
            ),
        ),
        main_class="org.elasticsearch.bootstrap.Elasticsearch",
        java=(17, 17),
        descriptor_java="1.8",
        flags=(
            "-Djava.security.manager=allow",
            "-Des.distribution.type=tar",
            "-Des.distribution.flavor=default",
            "-Des.bundled_jdk=false",
        ),
        path_property="es",
    )


def _elasticsearch_9(version: str) -> Recipe:
    return Recipe(
        name=f"elasticsearch-{version}",
        product="elasticsearch",
        version=version,
        lock=_LOCKS / f"elasticsearch-{version}.lock.json",
        roots=(f"org.elasticsearch:elasticsearch:{version}",),
        lib=(),
        modules=(
            Module(
                "transport-netty4",
                f"org.elasticsearch.plugin:transport-netty4:{version}",
                "org.elasticsearch.transport.netty4.Netty4Plugin",
            ),
        ),
        main_class="bridge.testnode.Server",
        java=(21, 25),
        descriptor_java="21",
        flags=(
            "--enable-native-access=ALL-UNNAMED",
            "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",
            "-Des.nativelibs.path={home}/native",
            "-Des.distribution.type=tar",
        ),
        path_property="es",
    )


def _connecting(recipe: Recipe) -> Recipe:
    """The product's own node, allowed to connect to others: its agent refuses what a module's policy does not name."""
    modules = (replace(one, policy=_NETTY_POLICY) if one.name == "transport-netty4" else one for one in recipe.modules)
    return replace(recipe, name=f"{recipe.name}-connecting", modules=tuple(modules))


def _with_models(recipe: Recipe) -> Recipe:
    """The product's own node with the plugin that runs models in the cluster and brings the analyzer `bert-uncased`."""
    plugin = "org.opensearch.plugin"
    return replace(
        recipe,
        name=f"opensearch-ml-{recipe.version}",
        lock=_LOCKS / f"opensearch-ml-{recipe.version}.lock.json",
        # The plugin's connectors want these from the server; a distribution has them there.
        lib=(
            *recipe.lib,
            "org.bouncycastle:bc-fips:2.1.2",
            "org.bouncycastle:bcutil-fips:2.1.5",
            "org.bouncycastle:bcpkix-fips:2.1.10",
        ),
        plugins=(
            *recipe.plugins,
            f"{plugin}:opensearch-job-scheduler:{recipe.version}.0",
            f"{plugin}:opensearch-ml-plugin:{recipe.version}.0",
        ),
        settings=(
            *recipe.settings,
            ("plugins.ml_commons.only_run_on_ml_node", "false"),
            ("plugins.ml_commons.connector.private_ip_enabled", "true"),
            ("plugins.ml_commons.trusted_connector_endpoints_regex", '["^http://127\\\\.0\\\\.0\\\\.1:.*$"]'),
        ),
    )


def _elasticsearch_8(version: str) -> Recipe:
    """As Elasticsearch 9, on the Java before it."""
    return replace(_elasticsearch_9(version), java=(17, 17), descriptor_java="17")


OPENSEARCH_2 = _opensearch_2("2.19.1")
ELASTICSEARCH_7 = _elasticsearch_7("7.17.29")
ELASTICSEARCH_8 = _elasticsearch_8("8.19.0")
ELASTICSEARCH_9 = _elasticsearch_9("9.2.0")
OPENSEARCH_ML = _with_models(OPENSEARCH)
OPENSEARCH_CONNECTING = _connecting(OPENSEARCH)
"""For clusters (`tests.nodes.cluster`)."""

RECIPES = {
    recipe.name: recipe for recipe in (OPENSEARCH_2, ELASTICSEARCH_7, ELASTICSEARCH_8, ELASTICSEARCH_9, OPENSEARCH_ML)
}
