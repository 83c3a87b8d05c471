//! The codecs of record batches, as readers that never hold more than they must.
//!
//! Memory of a decoder: gzip 64 KiB; snappy the larger of a block and, for the unframed form, 22 times the compressed
//! bytes; lz4 two blocks (at most 4 MiB each); zstd the window of the frame (at most 128 MiB, of which only what was
//! decompressed is touched). How much may be decompressed is the caller's limit. It does not choose codecs or levels.

use std::fmt;
use std::io::{self, Cursor, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::error::LogError;

/// The codec of a batch; the numbers are the protocol's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Codec {
    /// Not compressed.
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks, in the framing of the Java client or bare as librdkafka sends it.
    Snappy = 2,
    /// The lz4 frame format.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

/// The first bytes of the framing that the Java client puts around snappy blocks.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Magic, then version and least compatible version as 32-bit numbers.
const XERIAL_HEADER_LEN: usize = 16;
/// Bytes compressed at once: a block of that framing has as many, as the Java client's do.
const PIECE_BYTES: usize = 32 * 1024;
/// No snappy element yields more than 64 bytes for 3, so a block that claims more than this many times its length lies.
const SNAPPY_RATIO_MAX: u64 = 22;
/// The first bytes of an lz4 frame.
const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// log2 of the largest zstd window: what levels up to 22 use.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Why bytes cannot be decompressed.
#[derive(Clone, Debug)]
pub(crate) enum DecodeFault {
    /// More than the limit comes out.
    TooLarge { len: u64 },
    /// The codec does not accept the bytes.
    Damaged(String),
}

impl Codec {
    /// All codecs, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    pub(crate) fn from_bits(bits: u8) -> Result<Self, LogError> {
        Self::ALL
            .get(usize::from(bits))
            .copied()
            .ok_or(LogError::UnsupportedCompression(bits))
    }

    /// A reader of what `bytes` decompress to. `max` bounds what is allocated at once, not what is read.
    pub(crate) fn decoder<'a>(
        self,
        bytes: &'a [u8],
        max: u64,
    ) -> Result<Box<dyn Read + 'a>, DecodeFault> {
        Ok(match self {
            Self::None => Box::new(bytes),
            Self::Gzip => Box::new(MultiGzDecoder::new(bytes)),
            Self::Snappy if bytes.starts_with(XERIAL_MAGIC) => Box::new(XerialReader::new(bytes)?),
            Self::Snappy => {
                let mut out = Vec::new();
                snappy_block(bytes, max, &mut out)?;
                Box::new(Cursor::new(out))
            }
            Self::Lz4 if bytes.starts_with(&LZ4_MAGIC) => {
                Box::new(lz4_flex::frame::FrameDecoder::new(bytes))
            }
            Self::Lz4 => return Err(DecodeFault::Damaged("not an lz4 frame".into())),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(bytes)
                    .and_then(|mut decoder| {
                        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                        Ok(decoder)
                    })
                    .map_err(|error| DecodeFault::Damaged(error.to_string()))?;
                Box::new(decoder)
            }
        })
    }

    /// Decompresses `bytes` into `out`, replacing what it held; at most `max` bytes, and no more memory than that.
    pub(crate) fn decompress(
        self,
        bytes: &[u8],
        max: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeFault> {
        out.clear();
        let mut reader = self.decoder(bytes, max)?;
        loop {
            // Twice as much each time, but never memory for more than one byte past the limit.
            let len = out.len() as u64;
            let piece = len.max(PIECE_BYTES as u64).min(max.saturating_add(1) - len);
            out.reserve_exact(piece as usize);
            let read = (&mut reader)
                .take(piece)
                .read_to_end(out)
                .map_err(|error| DecodeFault::Damaged(error.to_string()))?;
            let len = out.len() as u64;
            if len > max {
                return Err(DecodeFault::TooLarge { len });
            }
            if (read as u64) < piece {
                return Ok(());
            }
        }
    }

    /// Compresses `bytes` at the codec's usual level, in the framing of the Java client.
    pub fn compress(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut encoder = Encoder::new(self)?;
        for piece in bytes.chunks(PIECE_BYTES) {
            encoder.write(piece)?;
        }
        encoder.finish()
    }

    /// What `bytes` of this codec are in another: in pieces, and no further than `out_max` bytes of output.
    pub(crate) fn recompress(
        self,
        bytes: &[u8],
        to: Self,
        limits: RecompressLimits,
    ) -> Result<Vec<u8>, DecodeFault> {
        let failed = |error: io::Error| DecodeFault::Damaged(error.to_string());
        let mut reader = self
            .decoder(bytes, limits.decompressed_bytes_max)?
            .take(limits.decompressed_bytes_max.saturating_add(1));
        let mut encoder = Encoder::new(to).map_err(failed)?;
        let mut decompressed = 0;
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        loop {
            piece.clear();
            let read = (&mut reader)
                .take(PIECE_BYTES as u64)
                .read_to_end(&mut piece)
                .map_err(failed)?;
            if read == 0 {
                break;
            }
            decompressed += read as u64;
            if decompressed > limits.decompressed_bytes_max {
                return Err(DecodeFault::TooLarge { len: decompressed });
            }
            encoder.write(&piece).map_err(failed)?;
            if encoder.len() > limits.out_max {
                break;
            }
        }
        let out = encoder.finish().map_err(failed)?;
        if out.len() as u64 > limits.out_max {
            return Err(DecodeFault::TooLarge {
                len: out.len() as u64,
            });
        }
        Ok(out)
    }
}

/// How far recompressing may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecompressLimits {
    pub(crate) decompressed_bytes_max: u64,
    pub(crate) out_max: u64,
}

/// Compresses what is written to it, in pieces of at most [`PIECE_BYTES`].
enum Encoder {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    // Boxed: large beside the others.
    Snappy(Vec<u8>, Box<snap::raw::Encoder>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(codec: Codec) -> io::Result<Self> {
        Ok(match codec {
            Codec::None => Self::Plain(Vec::new()),
            Codec::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default())),
            Codec::Snappy => {
                let mut out = Vec::new();
                out.extend_from_slice(XERIAL_MAGIC);
                out.extend_from_slice(&1u32.to_be_bytes());
                out.extend_from_slice(&1u32.to_be_bytes());
                Self::Snappy(out, Box::new(snap::raw::Encoder::new()))
            }
            Codec::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(Vec::new()))),
            Codec::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(
                Vec::new(),
                zstd::DEFAULT_COMPRESSION_LEVEL,
            )?),
        })
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.extend_from_slice(piece),
            Self::Gzip(encoder) => encoder.write_all(piece)?,
            Self::Snappy(out, encoder) => {
                let block = encoder.compress_vec(piece).map_err(io::Error::other)?;
                out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                out.extend_from_slice(&block);
            }
            Self::Lz4(encoder) => encoder.write_all(piece)?,
            Self::Zstd(encoder) => encoder.write_all(piece)?,
        }
        Ok(())
    }

    /// Bytes that have come out so far; a little is still held back.
    fn len(&self) -> u64 {
        let out = match self {
            Self::Plain(out) | Self::Snappy(out, _) => out,
            Self::Gzip(encoder) => encoder.get_ref(),
            Self::Lz4(encoder) => encoder.get_ref(),
            Self::Zstd(encoder) => encoder.get_ref(),
        };
        out.len() as u64
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(out) | Self::Snappy(out, _) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// Decompresses one block into `out`, replacing what it held.
fn snappy_block(block: &[u8], max: u64, out: &mut Vec<u8>) -> Result<(), DecodeFault> {
    let damaged = |error: snap::Error| DecodeFault::Damaged(error.to_string());
    let len = snap::raw::decompress_len(block).map_err(damaged)?;
    if len as u64 > (block.len() as u64).saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(DecodeFault::Damaged(format!(
            "{} bytes claim to hold {len}",
            block.len()
        )));
    }
    if len as u64 > max {
        return Err(DecodeFault::TooLarge { len: len as u64 });
    }
    out.clear();
    out.resize(len, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, out)
        .map_err(damaged)?;
    out.truncate(written);
    Ok(())
}

/// Reads snappy blocks, each with its length before it.
struct XerialReader<'a> {
    rest: &'a [u8],
    block: Vec<u8>,
    at: usize,
}

impl<'a> XerialReader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, DecodeFault> {
        // The versions say 1; readers of the Java client accept any, since there has been one format only.
        match bytes.get(XERIAL_HEADER_LEN..) {
            Some(rest) => Ok(Self {
                rest,
                block: Vec::new(),
                at: 0,
            }),
            None => Err(DecodeFault::Damaged("snappy framing is cut off".into())),
        }
    }

    /// Decompresses the next block that is not empty; false at the end.
    fn next_block(&mut self) -> Result<bool, String> {
        while !self.rest.is_empty() {
            let (len, rest) = self
                .rest
                .split_first_chunk::<4>()
                .ok_or("snappy block length is cut off")?;
            let len = u32::from_be_bytes(*len) as usize;
            let block = rest.get(..len).ok_or("snappy block is cut off")?;
            self.rest = &rest[len..];
            self.at = 0;
            // The ratio check bounds a block by 22 times the input; the walk bounds the sum.
            snappy_block(block, u64::MAX, &mut self.block).map_err(|fault| match fault {
                DecodeFault::Damaged(reason) => reason,
                DecodeFault::TooLarge { len } => format!("block of {len} bytes"),
            })?;
            if !self.block.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Read for XerialReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            let more = self
                .next_block()
                .map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
            if !more {
                return Ok(0);
            }
        }
        let held = &self.block[self.at..];
        let len = held.len().min(out.len());
        out[..len].copy_from_slice(&held[..len]);
        self.at += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        codec
            .decoder(bytes, 1 << 20)
            .unwrap()
            .read_to_end(&mut out)
            .unwrap();
        out
    }

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let plain: Vec<u8> = (0..100_000u32)
            .flat_map(|n| (n / 7).to_be_bytes())
            .collect();
        for codec in Codec::ALL {
            for len in [0, 1, 40_000, plain.len()] {
                let packed = codec.compress(&plain[..len]).unwrap();
                assert_eq!(decompress(codec, &packed), &plain[..len], "{codec} {len}");
            }
        }
    }

    #[test]
    fn snappy_is_read_bare_and_in_the_framing_of_the_java_client() {
        let plain = b"snappy snappy snappy snappy".repeat(10);
        let bare = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        assert_eq!(decompress(Codec::Snappy, &bare), plain);
        let framed = Codec::Snappy.compress(&plain).unwrap();
        assert_eq!(&framed[..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        assert_eq!(decompress(Codec::Snappy, &framed), plain);
    }

    #[test]
    fn a_snappy_length_that_cannot_be_is_refused_before_it_is_allocated() {
        // A varint that claims 4 GiB - 1 for a block of a few bytes.
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
        let fault = Codec::Snappy.decoder(&lie, u64::MAX).err();
        assert!(matches!(fault, Some(DecodeFault::Damaged(_))), "{fault:?}");
    }

    #[test]
    fn every_codec_becomes_every_other_and_stops_at_its_limits() {
        let plain: Vec<u8> = (0..50_000u32).flat_map(|n| (n / 7).to_be_bytes()).collect();
        let len = plain.len() as u64;
        let limits = |decompressed_bytes_max, out_max| RecompressLimits {
            decompressed_bytes_max,
            out_max,
        };
        for from in Codec::ALL {
            let packed = from.compress(&plain).unwrap();
            for to in Codec::ALL {
                let whole = from.recompress(&packed, to, limits(len, 2 * len)).unwrap();
                assert_eq!(whole, to.compress(&plain).unwrap(), "{from} {to}");
                let out = whole.len() as u64;
                assert!(from.recompress(&packed, to, limits(len, out)).is_ok());
                for too_small in [limits(len - 1, 2 * len), limits(len, out - 1)] {
                    let fault = from.recompress(&packed, to, too_small).unwrap_err();
                    assert!(matches!(fault, DecodeFault::TooLarge { .. }), "{fault:?}");
                }
            }
        }
    }

    #[test]
    fn a_cut_off_stream_of_any_codec_is_an_error_or_shorter() {
        let plain = b"some bytes that do not compress to nothing 0123456789".repeat(20);
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = codec.compress(&plain).unwrap();
            for len in 0..packed.len() {
                let mut out = Vec::new();
                if let Ok(mut decoder) = codec.decoder(&packed[..len], 1 << 20)
                    && decoder.read_to_end(&mut out).is_ok()
                {
                    assert!(plain.starts_with(&out), "{codec} {len}");
                }
            }
        }
    }
}
