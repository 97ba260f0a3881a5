"""An index as the retriever of a framework: `langchain` and `haystack`, each with an extra of its name."""
