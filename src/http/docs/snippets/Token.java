import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** Java 17 or newer. Use your JSON library instead of the two patterns here. */
public class Token {
    private final HttpClient http = HttpClient.newHttpClient();
    private final String url = System.getenv("TOLLGATE_URL");
    private final String key = System.getenv("TOLLGATE_KEY");
    private String access, refresh;
    private Instant renewAt = Instant.MIN;

    /** Returns a token that is valid for at least another minute. `synchronized` allows one renewal at a time. */
    synchronized String accessToken() throws Exception {
        if (Instant.now().isBefore(renewAt)) return access;
        String error = ask(refresh == null ? "/api/authorize" : "/api/refresh_token");
        if ("invalid_grant".equals(error) && refresh != null) {
            refresh = null; // the session is over: start a new one
            error = ask("/api/authorize");
        }
        if (error != null) throw new IllegalStateException("no token: " + error);
        return access;
    }

    private String ask(String path) throws Exception {
        var fields = new java.util.HashMap<>(Map.of(
            "client_id", System.getenv("TOLLGATE_CLIENT_ID"),
            "client_secret", System.getenv("TOLLGATE_CLIENT_SECRET")));
        if (refresh != null) fields.put("refresh_token", refresh);
        String body = fields.entrySet().stream()
            .map(field -> field.getKey() + "=" + URLEncoder.encode(field.getValue(), StandardCharsets.UTF_8))
            .collect(Collectors.joining("&"));
        var request = HttpRequest.newBuilder(URI.create(url + path)).timeout(Duration.ofSeconds(10))
            .header("X-API-KEY", key).header("Content-Type", "application/x-www-form-urlencoded")
            .POST(HttpRequest.BodyPublishers.ofString(body)).build();
        String json = http.send(request, BodyHandlers.ofString()).body();
        if (text(json, "access_token") == null) return text(json, "error");
        access = text(json, "access_token");
        refresh = text(json, "refresh_token");
        var seconds = Pattern.compile("\"expires_in\":\\s*(\\d+)").matcher(json);
        seconds.find();
        renewAt = Instant.now().plusSeconds(Long.parseLong(seconds.group(1)) - 60);
        return null;
    }

    private static String text(String json, String name) {
        var found = Pattern.compile("\"" + name + "\":\\s*\"([^\"]*)\"").matcher(json);
        return found.find() ? found.group(1) : null;
    }

    public static void main(String[] arguments) throws Exception {
        var tollgate = new Token();
        var request = HttpRequest.newBuilder(URI.create(System.getenv("API_URL")))
            .header("X-API-KEY", tollgate.key).header("ACCESS-TOKEN", tollgate.accessToken()).build();
        int status = tollgate.http.send(request, BodyHandlers.discarding()).statusCode();
        if (status != 200) throw new IllegalStateException("status " + status);
    }
}
