<?php
// PHP 8, with its standard HTTP streams.
final class Tollgate
{
    private ?string $refresh = null;
    private string $access = '';
    private int $renewAt = 0;

    public function __construct(
        private string $url, private string $key, private string $clientId, private string $clientSecret) {}

    /** Returns a token that is valid for at least another minute. Keep the object, or its three fields, between requests. */
    public function accessToken(): string
    {
        if (time() >= $this->renewAt) {
            $error = $this->ask($this->refresh === null ? '/api/authorize' : '/api/refresh_token');
            if ($error === 'invalid_grant' && $this->refresh !== null) {
                $this->refresh = null; // the session is over: start a new one
                $error = $this->ask('/api/authorize');
            }
            if ($error !== null) throw new RuntimeException("no token: $error");
        }
        return $this->access;
    }

    private function ask(string $path): ?string
    {
        $fields = ['client_id' => $this->clientId, 'client_secret' => $this->clientSecret];
        if ($this->refresh !== null) $fields['refresh_token'] = $this->refresh;
        $answer = file_get_contents($this->url . $path, false, stream_context_create(['http' => [
            'method' => 'POST', 'timeout' => 10, 'ignore_errors' => true, 'content' => http_build_query($fields),
            'header' => "X-API-KEY: {$this->key}\r\nContent-Type: application/x-www-form-urlencoded"]]));
        if ($answer === false) return 'no answer';
        $pair = json_decode($answer, true);
        if (!isset($pair['access_token'])) return $pair['error'];
        [$this->access, $this->refresh] = [$pair['access_token'], $pair['refresh_token']];
        $this->renewAt = time() + $pair['expires_in'] - 60;
        return null;
    }
}

$key = getenv('TOLLGATE_KEY');
$tollgate = new Tollgate(
    getenv('TOLLGATE_URL'), $key, getenv('TOLLGATE_CLIENT_ID'), getenv('TOLLGATE_CLIENT_SECRET'));
$headers = "X-API-KEY: $key\r\nACCESS-TOKEN: {$tollgate->accessToken()}";
$answer = file_get_contents(getenv('API_URL'), false, stream_context_create(['http' => ['header' => $headers]]));
exit($answer === false ? 1 : 0);
