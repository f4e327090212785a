//! One segment: an append-only file of framed records, each whole or absent after a crash.
//!
//! Knows nothing of what the records say. Used by the writer, and at open.
//!
//! A file is the 8 bytes of [`MAGIC`] and then frames: payload length (u32, little-endian), CRC-32 of the frame's offset
//! and length, CRC-32 of the payload, payload. The header's own checksum tells a torn length from a true one, and the
//! offset in it keeps bytes that merely look like a frame (in metadata, say) from being taken for one.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use motet_engine::failure::{Failure, FailureClass};

use super::folder::{io_failure, sync_folder};

/// How a segment starts; the last byte is the version of the frames.
const MAGIC: &[u8; 8] = b"MOTETVX\x01";

/// Bytes before each payload.
const HEADER: usize = 12;

/// How much of a damaged file is looked through at a time.
const WINDOW: usize = 1 << 20;

/// A frame under construction: room for the header, then the payload.
pub(super) struct Frame(Vec<u8>);

impl Frame {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self(vec![0; HEADER])
    }

    /// The buffer to append the payload to.
    pub(super) fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    fn seal(&mut self, offset: u64) -> io::Result<()> {
        let length = u32::try_from(self.0.len() - HEADER)
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "the batch exceeds 4 GiB"))?;
        let payload_sum = crc32fast::hash(&self.0[HEADER..]);
        self.0[0..4].copy_from_slice(&length.to_le_bytes());
        self.0[4..8].copy_from_slice(&header_sum(offset, length).to_le_bytes());
        self.0[8..12].copy_from_slice(&payload_sum.to_le_bytes());
        Ok(())
    }
}

fn header_sum(offset: u64, length: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&offset.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.finalize()
}

/// A header whose own checksum is right.
struct Header {
    length: u32,
    payload_sum: u32,
}

impl Header {
    fn read(bytes: &[u8], offset: u64) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
        let (length, sum, payload_sum) = (word(0)?, word(4)?, word(8)?);
        (length > 0 && sum == header_sum(offset, length)).then_some(Self { length, payload_sum })
    }

    fn end(&self, offset: u64) -> u64 {
        offset + HEADER as u64 + u64::from(self.length)
    }
}

/// A segment open for appending.
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Segment {
    /// Makes an empty segment under a name that recovery passes over. It becomes real with [`Segment::publish`].
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        file.write_all(MAGIC)?;
        Ok(Self { path: path.to_owned(), file, length: MAGIC.len() as u64 })
    }

    /// Flushes the segment and gives it its name, so that it is there whole or not at all.
    pub(super) fn publish(&mut self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, path)?;
        self.path = path.to_owned();
        path.parent().map_or(Ok(()), sync_folder)
    }

    /// Opens a segment and hands every payload to `apply`. An incomplete last frame is cut off with a warning; damage
    /// before whole frames is refused, since cutting there would lose acknowledged batches.
    pub(super) fn open(path: &Path, mut apply: impl FnMut(&[u8]) -> Result<(), String>) -> Result<Self, Failure> {
        let failed = |error: io::Error| io_failure("read", path, &error);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let end = file.metadata().map_err(failed)?.len();
        let mut reader = BufReader::with_capacity(WINDOW, &file);
        let mut magic = [0; MAGIC.len()];
        if end < magic.len() as u64 || reader.read_exact(&mut magic).is_err() || magic != *MAGIC {
            return Err(damaged(path, 0, "it does not start as a segment of this version"));
        }
        let mut offset = magic.len() as u64;
        let mut payload = Vec::new();
        while offset < end {
            let Some(header) = read_header(&mut reader, offset, end).map_err(failed)? else {
                if let Some(next) = next_frame(&file, offset + 1, end).map_err(failed)? {
                    return Err(damaged(
                        path,
                        offset,
                        &format!("the frame's header is wrong, but one at {next} is whole"),
                    ));
                }
                break;
            };
            if header.end(offset) > end {
                break;
            }
            payload.resize(header.length as usize, 0);
            reader.read_exact(&mut payload).map_err(failed)?;
            if crc32fast::hash(&payload) != header.payload_sum {
                if header.end(offset) == end {
                    break;
                }
                return Err(damaged(path, offset, "the frame's checksum is wrong, and more follows it"));
            }
            apply(&payload).map_err(|why| damaged(path, offset, &why))?;
            offset = header.end(offset);
        }
        let mut segment = Self { path: path.to_owned(), file, length: offset };
        if offset < end {
            segment.cut(end).map_err(failed)?;
        }
        segment.file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(segment)
    }

    /// Cuts what follows the last whole frame.
    fn cut(&mut self, end: u64) -> io::Result<()> {
        tracing::warn!(
            file = %self.path.display(),
            offset = self.length,
            bytes = end - self.length,
            "the last batch was not written whole, so it was never acknowledged: cut off",
        );
        self.file.set_len(self.length)?;
        self.file.sync_all()
    }

    /// Appends a frame without flushing it.
    pub(super) fn append(&mut self, mut frame: Frame) -> io::Result<()> {
        frame.seal(self.length)?;
        self.file.write_all(&frame.0)?;
        self.length += frame.0.len() as u64;
        Ok(())
    }

    /// Makes what was appended durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Bytes in the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts another file in place of the open one, so that tests can make the disk fail.
    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: File) {
        self.file = file;
    }
}

fn read_header(reader: &mut impl Read, offset: u64, end: u64) -> io::Result<Option<Header>> {
    if end - offset < HEADER as u64 {
        return Ok(None);
    }
    let mut bytes = [0; HEADER];
    reader.read_exact(&mut bytes)?;
    Ok(Header::read(&bytes, offset))
}

/// The offset of the first whole frame at or after `from`.
fn next_frame(mut file: &File, from: u64, end: u64) -> io::Result<Option<u64>> {
    let mut start = from;
    let mut window = Vec::new();
    while start + (HEADER as u64) < end {
        window.clear();
        file.seek(SeekFrom::Start(start))?;
        file.take(WINDOW as u64).read_to_end(&mut window)?;
        for (position, bytes) in window.windows(HEADER).enumerate() {
            let offset = start + position as u64;
            let Some(header) = Header::read(bytes, offset).filter(|header| header.end(offset) <= end) else { continue };
            let mut payload = vec![0; header.length as usize];
            file.seek(SeekFrom::Start(offset + HEADER as u64))?;
            file.read_exact(&mut payload)?;
            if crc32fast::hash(&payload) == header.payload_sum {
                return Ok(Some(offset));
            }
        }
        // The last bytes of a window are looked at again with those that follow them.
        start += window.len().saturating_sub(HEADER - 1).max(1) as u64;
    }
    Ok(None)
}

fn damaged(path: &Path, offset: u64, why: &str) -> Failure {
    Failure::new(
        FailureClass::Internal,
        format!(
            "{} is damaged at offset {offset}: {why}. Nothing was changed; restore the folder from a backup, or remove \
             it and fill the index again",
            path.display()
        ),
    )
}
