//! What goes over a cable, in a file (pcapng, draft-ietf-opsawg-pcapng).

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Error, Result, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::{DataLink, PcapError};

use crate::frame::Frame;

/// Timestamps are in nanoseconds (section 4.2, `if_tsresol`).
const NANOSECONDS: u8 = 9;
/// The direction among a packet's flags (section 4.3.1): to the card, from it.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A file that frames are recorded to. Every frame is in it when it has passed.
pub struct Capture {
    path: PathBuf,
    /// `None` once the file could not be written.
    writer: Mutex<Option<PcapNgWriter<BufWriter<File>>>>,
}

impl Capture {
    /// Makes the file, in place of one that is there. `name` is the card's in the file.
    ///
    /// # Errors
    /// It can't be written.
    pub fn create(path: &Path, name: &str) -> Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let options = vec![
            InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 0, options };
        let begin = || {
            let mut writer = PcapNgWriter::new(file)?;
            writer.write_pcapng_block(interface)?;
            Ok(writer)
        };
        let mut writer = begin().map_err(io_error)?;
        writer.get_mut().flush()?;
        Ok(Self { path: path.to_owned(), writer: Mutex::new(Some(writer)) })
    }

    /// Records a frame as it is on the cable: large segments, and checksums that are yet to be made, as Linux's tcpdump has
    /// them.
    pub(crate) fn record(&self, frame: &Frame, to_card: bool) {
        let mut place = self.writer.lock();
        let Some(writer) = place.as_mut() else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: now,
            original_len: frame.bytes.len() as u32,
            data: Cow::Borrowed(&frame.bytes),
            options: vec![EnhancedPacketOption::Flags(if to_card { INBOUND } else { OUTBOUND })],
        };
        let written = writer.write_pcapng_block(block).map_err(io_error).and_then(|_| writer.get_mut().flush());
        if let Err(error) = written {
            tracing::warn!(file = %self.path.display(), %error, "the capture ends here: its file can't be written");
            *place = None;
        }
    }
}

fn io_error(error: PcapError) -> Error {
    match error {
        PcapError::IoError(error) => error,
        other => Error::other(other),
    }
}
