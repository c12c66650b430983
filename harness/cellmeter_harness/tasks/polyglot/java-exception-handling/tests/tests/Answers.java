import java.io.IOException;
import java.io.Reader;
import java.io.StringReader;

/** Answers the grader's cases, one per argument: what kind of source, and its text. */
public final class Answers {
    /** Knows whether it was closed, and fails on reading if told to. */
    private static final class Source extends Reader {
        private final Reader text;
        private final String trouble;
        private boolean closed = false;

        Source(String text, String trouble) {
            this.text = new StringReader(text);
            this.trouble = trouble;
        }

        @Override
        public int read(char[] buffer, int offset, int length) throws IOException {
            if (trouble != null) {
                throw new IOException(trouble);
            }
            return text.read(buffer, offset, length);
        }

        @Override
        public void close() {
            closed = true;
        }
    }

    private static Source source(String kind, String word) {
        if (kind.equals("broken")) {
            return new Source("", word);
        }
        return new Source(kind.equals("empty") ? "" : word + "\nmore\n", null);
    }

    public static void main(String[] arguments) {
        for (String argument : arguments) {
            String[] parts = argument.split(":");
            Source source = source(parts[0], parts[1]);
            String said;
            try {
                String line = SafeReader.firstLine(source);
                said = line == null ? "nothing" : "line " + line;
            } catch (IOException error) {
                said = "error " + error.getMessage();
            }
            System.out.println("\nanswer: " + said + (source.closed ? " closed" : " open"));
        }
    }
}
