//! Bodies that travel compressed: gzip and deflate (in zlib's container), both ways.
//!
//! Never inflates more than a body may have. Used by routes whose clients compress.

use std::io::{Read, Write};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use super::problem::Problem;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, as HTTP means `deflate`.
    Deflate,
}

impl Encoding {
    /// The name in headers.
    pub(crate) fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        })
    }

    fn named(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }
}

/// How a request's body is compressed; none when it is not.
///
/// # Errors
/// `415` for an encoding that is not known.
pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Encoding>, Problem> {
    let Some(header) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
    let name = header.to_str().unwrap_or_default();
    if name.trim().is_empty() || name.trim().eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    Encoding::named(name).map(Some).ok_or_else(|| {
        let words = "the body is compressed in a way that is not known; send it as gzip, deflate or identity";
        Problem::new(415, "unsupported_media_type", words)
    })
}

/// The encoding of the answer that a request would rather have; none when it wants it as it is.
pub(crate) fn wanted(headers: &HeaderMap) -> Option<Encoding> {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|header| header.to_str().ok());
    let named = accepted.flat_map(|header| header.split(',')).filter_map(|entry| {
        let mut parts = entry.split(';');
        let encoding = Encoding::named(parts.next().unwrap_or_default())?;
        let weight = parts.find_map(|part| part.trim().strip_prefix("q="));
        let weight: f32 = weight.map_or(Some(1.0), |weight| weight.trim().parse().ok())?;
        (weight > 0.0).then_some((encoding, weight))
    });
    // Of equals the first that was named.
    named.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(encoding, _)| encoding)
}

/// The bytes of a compressed body, at most `most` of them.
///
/// # Errors
/// `400` for bytes that are not compressed so, `413` for more than may be.
pub(crate) fn inflate(encoding: Encoding, body: &[u8], most: usize) -> Result<Bytes, Problem> {
    let mut whole = Vec::with_capacity(body.len().saturating_mul(2).min(most));
    // One more tells what is too large from what just fits.
    let limit = most as u64 + 1;
    let read = match encoding {
        Encoding::Gzip => MultiGzDecoder::new(body).take(limit).read_to_end(&mut whole),
        Encoding::Deflate => ZlibDecoder::new(body).take(limit).read_to_end(&mut whole),
    };
    read.map_err(|error| Problem::new(400, "malformed_body", format!("the body cannot be decompressed: {error}")))?;
    if whole.len() > most {
        let words = format!("the body is larger than {most} bytes (http.max_body_bytes) once it is decompressed");
        return Err(Problem::new(413, "body_too_large", words));
    }
    Ok(whole.into())
}

/// A body compressed for the way, quickly rather than well.
///
/// # Errors
/// When the compressor fails.
pub(crate) fn deflate(encoding: Encoding, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let small = Vec::with_capacity(body.len() / 2);
    match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(small, Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(small, Compression::fast());
            encoder.write_all(body)?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_as_they_went_and_never_larger_than_allowed() {
        let body = vec![7u8; 100_000];
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let small = deflate(encoding, &body).unwrap();
            assert!(small.len() < 1000);
            assert_eq!(inflate(encoding, &small, body.len()).unwrap(), body);
            assert_eq!(inflate(encoding, &small, body.len() - 1).unwrap_err().status().as_u16(), 413);
            assert_eq!(inflate(encoding, &small[..small.len() / 2], 1 << 20).unwrap_err().status().as_u16(), 400);
            assert_eq!(inflate(encoding, b"plain", 1 << 20).unwrap_err().status().as_u16(), 400);
        }
    }

    #[test]
    fn headers_name_encodings() {
        let headers = |name: header::HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        for (value, expected) in [
            ("gzip", Some(Encoding::Gzip)),
            ("deflate, gzip", Some(Encoding::Deflate)),
            ("deflate;q=0.5, gzip;q=0.8", Some(Encoding::Gzip)),
            ("gzip;q=0", None),
            ("br, identity", None),
            ("", None),
        ] {
            assert_eq!(wanted(&headers(header::ACCEPT_ENCODING, value)), expected, "{value}");
        }
        for (value, expected) in [
            ("gzip", Ok(Some(Encoding::Gzip))),
            ("Deflate", Ok(Some(Encoding::Deflate))),
            ("identity", Ok(None)),
            ("br", Err(415)),
        ] {
            let read = of_request(&headers(header::CONTENT_ENCODING, value));
            assert_eq!(read.map_err(|problem| problem.status().as_u16()), expected, "{value}");
        }
    }
}
