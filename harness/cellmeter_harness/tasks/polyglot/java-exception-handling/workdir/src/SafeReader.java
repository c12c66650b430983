import java.io.BufferedReader;
import java.io.IOException;
import java.io.Reader;

/** Reads and closes. */
public final class SafeReader {
    private SafeReader() {}

    /** The first line of the source, or null where it is empty; the source is closed. */
    public static String firstLine(Reader source) throws IOException {
        BufferedReader reader = new BufferedReader(source);
        String line = reader.readLine();
        reader.close();
        return line;
    }
}
