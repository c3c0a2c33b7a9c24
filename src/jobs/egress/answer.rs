//! Reads a receiver's answer. Only the status line decides. A receiver that sent `200` has the event, and
//! would get it twice if we retried because something else in the answer is wrong.
//!
//! So this parser is more lenient than a general HTTP/1 client may be (RFC 9112). It reads only the headers
//! that it needs. It skips malformed lines: folded ones, and those without a colon, with a space before the
//! colon or with control characters. It limits the bytes and the time.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;

use crate::domain::delivery::{ANSWER_MAX, Received, SendError};

/// The most bytes that we read of an answer, for head and body together. Some receivers send tens of
/// kilobytes of headers.
const BYTES_MAX: u64 = 64 * 1024;

/// The time for everything after the status line. A slow receiver cannot change the result any more.
const REST_TIMEOUT: Duration = Duration::from_secs(2);

/// A longer `Retry-After` is ignored.
const RETRY_AFTER_MAX: usize = 100;

/// Reads the answer to a POST.
pub(super) async fn read(stream: impl AsyncRead + Unpin) -> Result<Received, SendError> {
    let mut input = BufReader::new(stream.take(BYTES_MAX));
    let status = final_status(&mut input).await?;
    let mut rest = Rest::default();
    // If the time is over or the receiver closes, we keep what we have read so far.
    let _ = timeout(REST_TIMEOUT, rest.read(&mut input, status)).await;
    Ok(Received { status, retry_after: rest.head.retry_after, text: text(rest.body) })
}

/// Reads only the status and the head, from a proxy that opens a tunnel.
pub(super) async fn read_status(stream: impl AsyncRead + Unpin) -> Result<u16, SendError> {
    let mut input = BufReader::new(stream.take(BYTES_MAX));
    let status = final_status(&mut input).await?;
    Head::default().read(&mut input).await.map_err(|_| SendError::ConnectionLost)?;
    // In TLS the client speaks first. If there are more bytes already, they are not from a TLS server, and
    // dropping this buffer would lose them.
    if input.buffer().is_empty() { Ok(status) } else { Err(SendError::AnswerMalformed) }
}

/// The status of the final answer. Skips interim answers such as `103 Early Hints`.
async fn final_status(input: &mut (impl AsyncBufRead + Unpin)) -> Result<u16, SendError> {
    loop {
        let line = line(input).await.map_err(|_| SendError::ConnectionLost)?;
        match line.as_deref() {
            None => return Err(SendError::ConnectionLost),
            // Some servers send an extra empty line after an interim answer.
            Some(b"") => {}
            Some(line) => {
                let status = parse_status(line).ok_or(SendError::AnswerMalformed)?;
                if !(100..200).contains(&status) || status == 101 {
                    return Ok(status);
                }
                Head::default().read(input).await.map_err(|_| SendError::ConnectionLost)?;
            }
        }
    }
}

/// Parses `HTTP/1.1 200 OK`. The text after the status may be missing.
fn parse_status(line: &[u8]) -> Option<u16> {
    let mut parts = line.strip_prefix(b"HTTP/")?.splitn(2, |byte| *byte == b' ');
    let version = parts.next()?;
    let is_version = matches!(version, [major, rest @ ..] if major.is_ascii_digit()
        && matches!(rest, [] | [b'.', b'0'..=b'9']));
    let (digits, rest) = parts.next()?.trim_ascii_start().split_first_chunk::<3>()?;
    let ends_there = rest.first().is_none_or(u8::is_ascii_whitespace);
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (is_version && ends_there && status >= 100 && digits.iter().all(u8::is_ascii_digit)).then_some(status)
}

/// The headers that we need.
#[derive(Default)]
struct Head {
    retry_after: Option<String>,
    content_length: Option<u64>,
    is_chunked: bool,
}

impl Head {
    /// Reads lines up to the empty one.
    async fn read(&mut self, input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
        while let Some(line) = line(input).await? {
            if line.is_empty() {
                break;
            }
            self.take(&line);
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) =
            (line[..colon].trim_ascii_end().to_ascii_lowercase(), line[colon + 1..].trim_ascii());
        let value = || String::from_utf8_lossy(value).into_owned();
        match &*name {
            b"retry-after" if line.len() <= RETRY_AFTER_MAX => self.retry_after = Some(value()),
            b"content-length" => self.content_length = value().parse().ok(),
            b"transfer-encoding" => self.is_chunked = value().to_ascii_lowercase().ends_with("chunked"),
            _ => {}
        }
    }
}

/// Everything after the status line.
#[derive(Default)]
struct Rest {
    head: Head,
    body: Vec<u8>,
}

impl Rest {
    async fn read(&mut self, input: &mut (impl AsyncBufRead + Unpin), status: u16) -> io::Result<()> {
        self.head.read(input).await?;
        if matches!(status, 101 | 204 | 304) {
            return Ok(());
        }
        if self.head.is_chunked {
            return self.read_chunks(input).await;
        }
        let length = self.head.content_length.unwrap_or(u64::MAX);
        self.read_body(input, length).await
    }

    /// Reads a chunked body (RFC 9112 7.1).
    async fn read_chunks(&mut self, input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
        while self.body.len() < ANSWER_MAX {
            let Some(line) = line(input).await? else { break };
            let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
            match size {
                None | Some(0) => break,
                Some(size) => self.read_body(input, size).await?,
            }
            // The line end after the data.
            self::line(input).await?;
        }
        Ok(())
    }

    /// Reads up to `length` bytes, but no more than we keep.
    async fn read_body(&mut self, input: &mut (impl AsyncBufRead + Unpin), length: u64) -> io::Result<()> {
        let room = (ANSWER_MAX - self.body.len()) as u64;
        input.take(length.min(room)).read_to_end(&mut self.body).await.map(drop)
    }
}

/// Reads a line and removes its end, which may be a bare LF (RFC 9112 2.2). `None` at the end of the stream,
/// also when the last line is incomplete.
async fn line(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(line))
}

/// The first bytes of a body as text that both engines can store.
fn text(mut bytes: Vec<u8>) -> String {
    bytes.truncate(ANSWER_MAX);
    // Drop a character that was cut in the middle.
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(bytes: &str) -> Result<(u16, String), SendError> {
        read(bytes.as_bytes()).await.map(|received| (received.status, received.text))
    }

    #[tokio::test]
    async fn the_status_line_decides_whatever_follows_it() {
        let end = "Content-Length: 2\r\n\r\nok and more";
        let many: String = (0..500).map(|n| format!("X-{n}: v\r\n")).collect();
        for head in [
            "",
            "X-A: 1\r\n 2\r\n\t3\r\n",
            "X-Powered-By : PHP\r\n",
            "PHP Warning something in line 3\r\n",
            "X-A: \x01\x7f\r\n: nameless\r\n\u{e9}: 1\r\n",
            &format!("X-Debug: {}\r\n", "x".repeat(40_000)),
            &many,
        ] {
            let answer = answered(&format!("HTTP/1.1 200 OK\r\n{head}{end}")).await;
            assert_eq!(answer, Ok((200, "ok".to_owned())), "{head:.60}");
        }
        for (answer, status) in [
            ("HTTP/1.0 200\r\n\r\n", 200),
            ("HTTP/1.1 200 \r\n\r\n", 200),
            ("HTTP/1.1 204 No Content\n\n", 204),
            ("\r\nHTTP/2 201 Created\r\n\r\n", 201),
            ("HTTP/1.1 200 OK\r\n", 200),
            ("HTTP/1.1 200 OK\r\nContent-Length: many\r\nContent-Length: 7\r\n\r\n", 200),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n", 200),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 410 Gone\r\n\r\n",
                410,
            ),
        ] {
            assert_eq!(answered(answer).await.map(|(status, _)| status), Ok(status), "{answer}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(20_000));
        assert_eq!(answered(&endless).await, Ok((200, String::new())));
    }

    #[tokio::test]
    async fn what_has_no_status_line_is_no_answer() {
        for answer in ["", "\r\n", "HTTP/1.1 200", "HTTP/1.1 100 Continue\r\n\r\n"] {
            assert_eq!(answered(answer).await, Err(SendError::ConnectionLost), "{answer}");
        }
        for answer in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 999999 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 +20 OK\r\n\r\n",
            "HTTP/1.1 OK 200\r\n\r\n",
            "HTTP/x 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
        ] {
            assert_eq!(answered(answer).await, Err(SendError::AnswerMalformed), "{answer}");
        }
    }

    #[tokio::test]
    async fn of_a_body_the_beginning_is_kept_as_text() {
        for (body, text) in [
            ("Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde"),
            ("Transfer-Encoding: gzip, Chunked\r\n\r\nffffffffffffffff\r\nabc", "abc"),
            ("\r\nup to the end", "up to the end"),
            ("Content-Length: 100\r\n\r\ncut off", "cut off"),
            ("\r\na\0b", "a\u{fffd}b"),
        ] {
            let answer = answered(&format!("HTTP/1.1 500 No\r\n{body}")).await;
            assert_eq!(answer, Ok((500, text.to_owned())), "{body}");
        }
        let long = format!("HTTP/1.1 200 OK\r\n\r\na{}", "\u{e9}".repeat(ANSWER_MAX));
        let (_, text) = answered(&long).await.expect("an answer");
        assert_eq!(text.len(), ANSWER_MAX - 1, "no half character");
    }

    #[tokio::test]
    async fn retry_after_is_found_as_it_was_written() {
        let received =
            read(&b"HTTP/1.1 503 No\r\nRETRY-AFTER :  Sun Nov  6 08:49:37 1994 \r\n\r\n"[..]).await;
        let found = received.expect("an answer").retry_after;
        assert_eq!(found.as_deref(), Some("Sun Nov  6 08:49:37 1994"));
    }

    #[tokio::test]
    async fn a_proxy_is_not_read_further_than_its_head() {
        assert_eq!(read_status(&b"HTTP/1.1 200 Connected\r\nvia: x\r\n\r\n"[..]).await, Ok(200));
        let early = read_status(&b"HTTP/1.1 200 Connected\r\n\r\nhello"[..]).await;
        assert_eq!(early, Err(SendError::AnswerMalformed));
    }
}
