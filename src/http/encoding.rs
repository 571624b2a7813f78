//! `Content-Encoding`: bodies that come as gzip or zstd, decompressed as they arrive.
//!
//! Used by `body.rs`, which counts the bytes on both sides. However much a compressed chunk stands
//! for, it comes out in pieces of bounded size, one for each call: who has had enough stops asking,
//! and nothing of the rest has ever been made.

use super::problem::{Kind, Problem};
use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, Read};
use zstd::stream::read::Decoder as ZstdDecoder;

/// Bytes made by one call: less than a millisecond of work.
const PIECE_BYTES: usize = 64 * 1024;
/// Largest window of zstd, as a power of two: 8 MiB, the most that a client may use over HTTP
/// (RFC 9659). It is the memory one body needs while it arrives.
const ZSTD_WINDOW_LOG: u32 = 23;
pub(super) const ZSTD_WINDOW_BYTES: usize = 1 << ZSTD_WINDOW_LOG;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Zstd,
}

/// What the headers say; `None` for a body that comes as it is.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, Problem> {
    let mut given = headers.get_all(header::CONTENT_ENCODING).iter();
    let (Some(first), second) = (given.next(), given.next()) else { return Ok(None) };
    let name = first.to_str().unwrap_or("?").trim().to_ascii_lowercase();
    match (name.as_str(), second) {
        ("identity", None) => Ok(None),
        ("gzip" | "x-gzip", None) => Ok(Some(Encoding::Gzip)),
        ("zstd", None) => Ok(Some(Encoding::Zstd)),
        (_, None) => Err(unsupported(&format!("\"{name}\" is not supported"))),
        (_, Some(_)) => Err(unsupported("more than one encoding is not supported")),
    }
}

fn unsupported(what: &str) -> Problem {
    let detail = format!("{what}: send the body as gzip, as zstd or without Content-Encoding");
    Problem::new(Kind::UnsupportedContentEncoding, detail)
}

/// What a decompressor has to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Piece(Bytes),
    /// Nothing until it is given more, or told that there is no more.
    Hungry,
    End,
}

/// A compressed body on its way.
pub(super) enum Decompressor {
    Gzip(Box<MultiGzDecoder<Inbox>>),
    Zstd(Box<ZstdDecoder<'static, Inbox>>),
}

impl Decompressor {
    pub(super) fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(Inbox::default()))),
            Encoding::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(Inbox::default()).expect("memory for a decoder");
                decoder.window_log_max(ZSTD_WINDOW_LOG).expect("a window in the range of the format");
                Self::Zstd(Box::new(decoder))
            }
        }
    }

    /// Takes the next chunk of the body; the last one has been used up.
    pub(super) fn give(&mut self, chunk: Bytes) {
        let inbox = self.inbox();
        debug_assert!(inbox.chunk.is_empty(), "a chunk is given to the hungry only");
        inbox.chunk = chunk;
    }

    /// Says that the body has come to its end.
    pub(super) fn end(&mut self) {
        self.inbox().ended = true;
    }

    /// Decompresses the next piece of what was given.
    pub(super) fn step(&mut self) -> Result<Step, Problem> {
        let mut piece = vec![0; PIECE_BYTES];
        let (read, name) = match self {
            Self::Gzip(decoder) => (decoder.read(&mut piece), "gzip"),
            Self::Zstd(decoder) => (decoder.read(&mut piece), "zstd"),
        };
        match read {
            Ok(0) => Ok(Step::End),
            Ok(bytes) => {
                piece.truncate(bytes);
                Ok(Step::Piece(piece.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Hungry),
            Err(error) => {
                let reason = match error.kind() {
                    io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
                    _ => error.to_string(),
                };
                Err(Problem::new(Kind::UnreadableBody, format!("the body is not valid {name}: {reason}")))
            }
        }
    }

    fn inbox(&mut self) -> &mut Inbox {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

/// The chunk a decoder reads from. Where it ends the decoder would wait for the network, which is
/// not its business: it is told to come back.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    chunk: Bytes,
    ended: bool,
}

impl BufRead for Inbox {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty() && !self.ended { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(&self.chunk) }
    }

    fn consume(&mut self, bytes: usize) {
        let _ = self.chunk.split_to(bytes);
    }
}

impl Read for Inbox {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::encode_all(plain, 3).unwrap()
    }

    /// The pieces of a body that comes in these chunks.
    fn pieces<'c>(encoding: Encoding, chunks: impl IntoIterator<Item = &'c [u8]>) -> Result<Vec<Bytes>, String> {
        let (mut decompressor, mut pieces) = (Decompressor::new(encoding), Vec::new());
        let mut chunks = chunks.into_iter();
        loop {
            match decompressor.step().map_err(|problem| problem.detail().to_owned())? {
                Step::Piece(piece) => pieces.push(piece),
                Step::End => return Ok(pieces),
                Step::Hungry => match chunks.next() {
                    Some(chunk) => decompressor.give(Bytes::copy_from_slice(chunk)),
                    None => decompressor.end(),
                },
            }
        }
    }

    /// The same in one chunk, cut in two everywhere, and byte by byte.
    #[track_caller]
    fn check(encoding: Encoding, compressed: &[u8], expected: Result<&[u8], &str>) {
        let check = |chunks: Vec<&[u8]>, how: usize| {
            let got = pieces(encoding, chunks).map(|pieces| pieces.concat());
            assert_eq!(got, expected.map(<[u8]>::to_vec).map_err(str::to_owned), "cut {how}");
        };
        for cut in 0..=compressed.len() {
            let (a, b) = compressed.split_at(cut);
            check([a, b].into_iter().filter(|chunk| !chunk.is_empty()).collect(), cut);
        }
        check(compressed.chunks(1).collect(), usize::MAX);
    }

    #[test]
    fn bodies_however_they_are_cut() {
        let text = b"source,value\na,1\n".repeat(40);
        for (encoding, compress) in [(Encoding::Gzip, gzip as fn(&[u8]) -> Vec<u8>), (Encoding::Zstd, zstd)] {
            check(encoding, &compress(&text), Ok(&text));
            check(encoding, &compress(b""), Ok(b""));
            // Several members or frames are one text.
            check(encoding, &[compress(b"one,"), compress(b"two")].concat(), Ok(b"one,two"));
        }
    }

    #[test]
    fn bodies_that_are_not_what_they_say() {
        let (zipped, packed) = (gzip(b"hello, hello"), zstd(b"hello, hello"));
        check(Encoding::Gzip, &zipped[..zipped.len() - 1], Err("the body is not valid gzip: it is cut off"));
        check(Encoding::Zstd, &packed[..packed.len() - 1], Err("the body is not valid zstd: it is cut off"));
        check(Encoding::Gzip, &packed, Err("the body is not valid gzip: invalid gzip header"));
        check(Encoding::Zstd, &zipped, Err("the body is not valid zstd: Unknown frame descriptor"));
        let mut corrupt = zipped;
        let checksum = corrupt.len() - 8;
        corrupt[checksum] ^= 1;
        check(
            Encoding::Gzip,
            &corrupt,
            Err("the body is not valid gzip: corrupt gzip stream does not have a matching checksum"),
        );
    }

    #[test]
    fn a_bomb_comes_out_in_pieces() {
        let plain = vec![0; 16 << 20];
        for (encoding, compressed) in [(Encoding::Gzip, gzip(&plain)), (Encoding::Zstd, zstd(&plain))] {
            assert!(plain.len() > 1_000 * compressed.len());
            let mut decompressor = Decompressor::new(encoding);
            assert_eq!(decompressor.step(), Ok(Step::Hungry));
            decompressor.give(compressed.into());
            for _ in 0..100 {
                let Ok(Step::Piece(piece)) = decompressor.step() else { panic!("there is more") };
                assert!(piece.len() <= PIECE_BYTES);
            }
        }
    }

    #[test]
    fn a_frame_of_zstd_with_a_larger_window_is_refused() {
        let compress = |log: u32| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(b"hello").unwrap();
            encoder.finish().unwrap()
        };
        assert!(pieces(Encoding::Zstd, [compress(23).as_slice()]).is_ok());
        let refused = pieces(Encoding::Zstd, [compress(24).as_slice()]).unwrap_err();
        assert!(refused.starts_with("the body is not valid zstd: Frame requires too much memory"), "{refused}");
    }

    #[test]
    fn headers() {
        let check = |values: &[&str], expected: Result<Option<Encoding>, &str>| {
            let header =
                |value: &&str| (HeaderName::from_static("content-encoding"), HeaderValue::from_str(value).unwrap());
            let got = encoding(&values.iter().map(header).collect());
            assert_eq!(got.as_ref().map_err(Problem::detail), expected.as_ref().map_err(|e| *e), "{values:?}");
        };
        let remedy = "send the body as gzip, as zstd or without Content-Encoding";
        check(&[], Ok(None));
        check(&["identity"], Ok(None));
        check(&["gzip"], Ok(Some(Encoding::Gzip)));
        check(&["X-GZIP"], Ok(Some(Encoding::Gzip)));
        check(&["zstd"], Ok(Some(Encoding::Zstd)));
        check(&["br"], Err(&format!("\"br\" is not supported: {remedy}")));
        check(&["gzip, zstd"], Err(&format!("\"gzip, zstd\" is not supported: {remedy}")));
        check(&["gzip", "zstd"], Err(&format!("more than one encoding is not supported: {remedy}")));
    }
}
