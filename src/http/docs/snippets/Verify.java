import java.io.ByteArrayOutputStream;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.Base64;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Verify {
    /** `secret` is the key's whsec_...; `headers` have lower-case names; `body` has the exact bytes. */
    static boolean isGenuine(String secret, Map<String, String> headers, byte[] body, Instant now) throws Exception {
        String at = headers.get("webhook-timestamp");
        if (Math.abs(now.getEpochSecond() - Long.parseLong(at)) > 300) return false; // an old webhook, sent again
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(Base64.getDecoder().decode(secret.substring("whsec_".length())), "HmacSHA256"));
        var signed = new ByteArrayOutputStream();
        signed.write((headers.get("webhook-id") + "." + at + ".").getBytes());
        signed.write(body);
        String expected = "v1," + Base64.getEncoder().encodeToString(mac.doFinal(signed.toByteArray()));
        // During a rotation of the secret there are two signatures.
        for (String one : headers.get("webhook-signature").split(" ")) {
            if (MessageDigest.isEqual(expected.getBytes(), one.getBytes())) return true;
        }
        return false;
    }
}
