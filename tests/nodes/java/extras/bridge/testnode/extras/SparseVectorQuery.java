package bridge.testnode.extras;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import org.apache.lucene.search.MatchNoDocsQuery;
import org.apache.lucene.search.Query;
import org.elasticsearch.TransportVersion;
import org.elasticsearch.common.ParsingException;
import org.elasticsearch.common.io.stream.StreamInput;
import org.elasticsearch.common.io.stream.StreamOutput;
import org.elasticsearch.index.mapper.MappedFieldType;
import org.elasticsearch.index.mapper.vectors.SparseVectorFieldMapper.SparseVectorFieldType;
import org.elasticsearch.index.mapper.vectors.TokenPruningConfig;
import org.elasticsearch.index.query.AbstractQueryBuilder;
import org.elasticsearch.index.query.SearchExecutionContext;
import org.elasticsearch.inference.WeightedToken;
import org.elasticsearch.xcontent.XContentBuilder;
import org.elasticsearch.xcontent.XContentParser;

/**
 * {@code {"sparse_vector": {"field", "query_vector", "prune", "pruning_config", "boost", "_name"}}}.
 *
 * <p>Only the parsing is ours; the Lucene query comes from the server's own field type.
 */
final class SparseVectorQuery extends AbstractQueryBuilder<SparseVectorQuery> {

    static final String NAME = "sparse_vector";

    private final String field;
    private final List<WeightedToken> tokens;
    private final Boolean prune;
    private final TokenPruningConfig pruning;

    private SparseVectorQuery(String field, List<WeightedToken> tokens, Boolean prune, TokenPruningConfig pruning) {
        this.field = field;
        this.tokens = tokens;
        this.prune = prune;
        this.pruning = pruning;
    }

    SparseVectorQuery(StreamInput in) throws IOException {
        super(in);
        field = in.readString();
        tokens = in.readCollectionAsList(WeightedToken::new);
        prune = in.readOptionalBoolean();
        pruning = in.readOptionalWriteable(TokenPruningConfig::new);
    }

    static SparseVectorQuery fromXContent(XContentParser parser) throws IOException {
        String field = null;
        Map<String, Object> vector = null;
        Boolean prune = null;
        TokenPruningConfig pruning = null;
        float boost = DEFAULT_BOOST;
        String queryName = null;
        for (Map.Entry<String, Object> entry : parser.map().entrySet()) {
            Object value = entry.getValue();
            switch (entry.getKey()) {
                case "field" -> field = (String) value;
                case "query_vector" -> vector = object(value);
                case "prune" -> prune = (Boolean) value;
                case "pruning_config" -> pruning = TokenPruningConfig.parseFromMap(object(value));
                case "boost" -> boost = ((Number) value).floatValue();
                case "_name" -> queryName = (String) value;
                default -> throw new ParsingException(
                    parser.getTokenLocation(),
                    "[" + NAME + "] unknown field [" + entry.getKey() + "]"
                );
            }
        }
        if (field == null || vector == null) {
            throw new ParsingException(parser.getTokenLocation(), "[" + NAME + "] requires [field] and [query_vector]");
        }
        List<WeightedToken> tokens = new ArrayList<>(vector.size());
        vector.forEach((token, weight) -> tokens.add(new WeightedToken(token, ((Number) weight).floatValue())));
        return new SparseVectorQuery(field, tokens, prune, pruning).boost(boost).queryName(queryName);
    }

    @SuppressWarnings("unchecked")
    private static Map<String, Object> object(Object value) {
        return (Map<String, Object>) value;
    }

    @Override
    protected Query doToQuery(SearchExecutionContext context) throws IOException {
        MappedFieldType type = context.getFieldType(field);
        if (type == null) {
            return new MatchNoDocsQuery("the field [" + field + "] is not mapped");
        }
        if (type instanceof SparseVectorFieldType sparse) {
            return sparse.finalizeSparseVectorQuery(context, field, tokens, prune, pruning);
        }
        throw new IllegalArgumentException(
            "[" + field + "] must be a sparse_vector field and is of type [" + type.typeName() + "]"
        );
    }

    @Override
    protected void doXContent(XContentBuilder builder, Params params) throws IOException {
        builder.startObject(NAME);
        builder.field("field", field);
        builder.startObject("query_vector");
        for (WeightedToken token : tokens) {
            builder.field(token.token(), token.weight());
        }
        builder.endObject();
        if (prune != null) {
            builder.field("prune", prune);
        }
        if (pruning != null) {
            builder.field("pruning_config", pruning);
        }
        boostAndQueryNameToXContent(builder);
        builder.endObject();
    }

    @Override
    protected void doWriteTo(StreamOutput out) throws IOException {
        out.writeString(field);
        out.writeCollection(tokens);
        out.writeOptionalBoolean(prune);
        out.writeOptionalWriteable(pruning);
    }

    @Override
    protected boolean doEquals(SparseVectorQuery other) {
        return field.equals(other.field)
            && tokens.equals(other.tokens)
            && Objects.equals(prune, other.prune)
            && Objects.equals(pruning, other.pruning);
    }

    @Override
    protected int doHashCode() {
        return Objects.hash(field, tokens, prune, pruning);
    }

    @Override
    public String getWriteableName() {
        return NAME;
    }

    @Override
    public TransportVersion getMinimalSupportedVersion() {
        return TransportVersion.fromId(0);
    }
}
