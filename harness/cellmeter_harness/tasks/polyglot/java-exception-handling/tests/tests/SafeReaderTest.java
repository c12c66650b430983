import java.io.IOException;
import java.io.Reader;
import java.io.StringReader;

/** Runs without a test framework. */
public final class SafeReaderTest {
    private static int failed = 0;

    /** Knows whether it was closed, and fails on reading if told to. */
    private static final class Source extends Reader {
        private final Reader text;
        private final boolean broken;
        private boolean closed = false;

        Source(String text, boolean broken) {
            this.text = new StringReader(text);
            this.broken = broken;
        }

        @Override
        public int read(char[] buffer, int offset, int length) throws IOException {
            if (broken) {
                throw new IOException("disk on fire");
            }
            return text.read(buffer, offset, length);
        }

        @Override
        public void close() {
            closed = true;
        }
    }

    private static void check(String name, boolean holds) {
        if (holds) {
            System.out.println("ok " + name);
        } else {
            System.err.println("FAIL " + name);
            failed++;
        }
    }

    public static void main(String[] arguments) throws IOException {
        Source happy = new Source("one\ntwo\n", false);
        check("happy returns line", "one".equals(SafeReader.firstLine(happy)));
        check("happy path closes source", happy.closed);
        check("empty source returns null", SafeReader.firstLine(new Source("", false)) == null);
        Source broken = new Source("one\n", true);
        String message = null;
        try {
            SafeReader.firstLine(broken);
        } catch (IOException error) {
            message = error.getMessage();
        }
        check("error reaches the caller", "disk on fire".equals(message));
        check("error path closes source", broken.closed);
        if (failed > 0) {
            System.err.println(failed + " test(s) failed");
            System.exit(1);
        }
        System.out.println("all tests passed");
    }
}
