//! A recording: a RIFF WAVE file of 16-bit stereo PCM (Microsoft and IBM, "Multimedia Programming Interface and Data
//! Specifications 1.0", chapter 3).
//!
//! A thread writes. After each batch it brings the header up to date, so that the file is whole at all times. Silence is a hole
//! in the file. Sizes have 32 bits: a recording that has reached 4 GiB ends there, and so does one that the host refuses.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Frame, Sink};

const HEADER: u64 = 44;
const FRAME: u64 = 4;
/// Most bytes of data that the header's 32 bits can tell, in whole frames.
const MOST_DATA: u64 = (u32::MAX as u64 - (HEADER - 8)) / FRAME * FRAME;
/// Most frames that wait for the thread: 20 seconds and more.
const MOST_FRAMES: usize = 1 << 20;
/// Most pieces that wait.
const MOST_PIECES: usize = 4096;

#[derive(Debug, PartialEq)]
enum Piece {
    Silence(u64),
    Frames(Vec<Frame>),
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    frames: usize,
    /// The thread has work in hand.
    busy: bool,
    closed: bool,
    /// Frames have been lost, which has been said.
    told: bool,
}

impl Queue {
    fn silence(&mut self, count: u64) {
        match self.pieces.back_mut() {
            _ if count == 0 => {}
            Some(Piece::Silence(last)) => *last = last.saturating_add(count),
            _ => self.pieces.push_back(Piece::Silence(count)),
        }
    }

    /// How many of the frames found no room.
    fn frames(&mut self, frames: &[Frame]) -> usize {
        let room = if self.pieces.len() < MOST_PIECES { MOST_FRAMES - self.frames } else { 0 };
        let taken = &frames[..frames.len().min(room)];
        self.frames += taken.len();
        match self.pieces.back_mut() {
            _ if taken.is_empty() => {}
            Some(Piece::Frames(last)) => last.extend_from_slice(taken),
            _ => self.pieces.push_back(Piece::Frames(taken.to_vec())),
        }
        let lost = frames.len() - taken.len();
        self.silence(lost as u64);
        lost
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// A recording.
pub struct WavSink {
    rate: u32,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl WavSink {
    /// Begins a recording, in place of what the file held, of so many frames in a second.
    ///
    /// # Errors
    /// The file cannot be made, is none that can be written at any place (a pipe), or the host gives no thread.
    pub fn create(path: &Path, rate: u32) -> std::io::Result<Self> {
        let rate = rate.max(1);
        let mut writer = Writer { file: File::create(path)?, path: path.to_owned(), rate, data: 0, ended: false };
        writer.header()?;
        let shared = Arc::new(Shared::default());
        let on_thread = shared.clone();
        let serve = move || serve(&on_thread, &mut writer);
        let thread = std::thread::Builder::new().name("sound".into()).spawn(serve)?;
        Ok(Self { rate, shared, thread: Some(thread) })
    }
}

impl Sink for WavSink {
    fn rate(&self) -> u32 {
        self.rate
    }

    fn play(&self, silence: u64, frames: &[Frame]) {
        let mut queue = self.shared.queue.lock();
        queue.silence(silence);
        if queue.frames(frames) > 0 && !std::mem::replace(&mut queue.told, true) {
            tracing::warn!("the host is too slow to record sound; some is lost");
        }
        drop(queue);
        self.shared.changed.notify_all();
    }

    fn flush(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        let mut queue = self.shared.queue.lock();
        while queue.busy || !queue.pieces.is_empty() {
            if self.shared.changed.wait_until(&mut queue, until).timed_out() {
                return;
            }
        }
    }
}

impl Drop for WavSink {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.changed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that records sound panicked");
        }
    }
}

/// The thread.
fn serve(shared: &Shared, writer: &mut Writer) {
    let mut queue = shared.queue.lock();
    loop {
        if queue.pieces.is_empty() {
            if queue.closed {
                return;
            }
            shared.changed.wait(&mut queue);
            continue;
        }
        let pieces = std::mem::take(&mut queue.pieces);
        queue.frames = 0;
        queue.busy = true;
        parking_lot::MutexGuard::unlocked(&mut queue, || writer.write(&pieces));
        queue.busy = false;
        shared.changed.notify_all();
    }
}

struct Writer {
    file: File,
    path: PathBuf,
    rate: u32,
    /// Bytes of sound so far.
    data: u64,
    ended: bool,
}

impl Writer {
    fn write(&mut self, pieces: &VecDeque<Piece>) {
        if self.ended {
            return;
        }
        let path = self.path.display().to_string();
        match self.put(pieces) {
            Ok(()) if self.data < MOST_DATA => return,
            Ok(()) => {
                tracing::warn!(path, "the recording has reached 4 GiB, the most that WAV files can have; it ends here")
            }
            Err(error) => {
                tracing::error!(path, %error, "sound can't be recorded any more; what there is can be played")
            }
        }
        self.ended = true;
    }

    fn put(&mut self, pieces: &VecDeque<Piece>) -> std::io::Result<()> {
        for piece in pieces {
            let left = MOST_DATA - self.data;
            match piece {
                Piece::Silence(count) => self.data += count.saturating_mul(FRAME).min(left),
                Piece::Frames(frames) => {
                    let most = usize::try_from(left / FRAME).unwrap_or(usize::MAX);
                    let bytes: Vec<u8> =
                        frames.iter().take(most).flatten().flat_map(|sample| sample.to_le_bytes()).collect();
                    self.file.write_all_at(&bytes, HEADER + self.data)?;
                    self.data += bytes.len() as u64;
                }
            }
        }
        // Silence at the end.
        if self.file.metadata()?.len() < HEADER + self.data {
            self.file.set_len(HEADER + self.data)?;
        }
        self.header()
    }

    fn header(&mut self) -> std::io::Result<()> {
        let mut header = Vec::with_capacity(HEADER as usize);
        // Both fit, see `MOST_DATA`.
        let data = self.data as u32;
        header.extend_from_slice(b"RIFF");
        header.extend_from_slice(&(data + (HEADER as u32 - 8)).to_le_bytes());
        header.extend_from_slice(b"WAVEfmt \x10\0\0\0");
        // PCM, two channels.
        header.extend_from_slice(&[1, 0, 2, 0]);
        header.extend_from_slice(&self.rate.to_le_bytes());
        header.extend_from_slice(&self.rate.saturating_mul(FRAME as u32).to_le_bytes());
        // Bytes of a frame, bits of a sample.
        header.extend_from_slice(&[FRAME as u8, 0, 16, 0]);
        header.extend_from_slice(b"data");
        header.extend_from_slice(&data.to_le_bytes());
        self.file.write_all_at(&header, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::read_wav;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_recording_is_whole_at_all_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let sink = WavSink::create(&path, 44_100).unwrap();
        assert_eq!(read_wav(&path), (44_100, vec![]));
        sink.play(0, &[[1, -1], [i16::MAX, i16::MIN]]);
        sink.flush(PATIENCE);
        assert_eq!(read_wav(&path).1, [[1, -1], [i16::MAX, i16::MIN]]);
        sink.play(2, &[[5, 6]]);
        sink.play(1, &[]);
        sink.flush(PATIENCE);
        let all = [[1, -1], [i16::MAX, i16::MIN], [0, 0], [0, 0], [5, 6], [0, 0]];
        assert_eq!(read_wav(&path).1, all);
        drop(sink);
        assert_eq!(read_wav(&path).1, all);
    }

    #[test]
    fn it_ends_cleanly_at_4_gib() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let sink = WavSink::create(&path, 48_000).unwrap();
        let most = MOST_DATA / FRAME;
        // A hole, for which a disk needs no room.
        sink.play(most - 3, &[[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]);
        sink.play(u64::MAX, &[[11, 12]]);
        sink.flush(PATIENCE);
        sink.play(0, &[[13, 14]]);
        drop(sink);
        let file = File::open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        assert_eq!(length, HEADER + MOST_DATA);
        assert!(length <= u64::from(u32::MAX) + 8);
        let mut sizes = [[0; 4]; 2];
        file.read_exact_at(&mut sizes[0], 4).unwrap();
        file.read_exact_at(&mut sizes[1], 40).unwrap();
        assert_eq!(sizes.map(u32::from_le_bytes), [(length - 8) as u32, MOST_DATA as u32]);
        let mut last = [0; 12];
        file.read_exact_at(&mut last, length - 12).unwrap();
        assert_eq!(last, [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
    }

    #[test]
    fn what_waits_is_bounded_and_time_is_kept() {
        let mut queue = Queue::default();
        assert_eq!(queue.frames(&vec![[1, 1]; MOST_FRAMES - 1]), 0);
        assert_eq!(queue.frames(&[[2, 2]; 3]), 2);
        queue.silence(5);
        assert_eq!(queue.frames(&[[3, 3]]), 1);
        assert_eq!((queue.frames, queue.pieces.len()), (MOST_FRAMES, 2));
        assert_eq!(queue.pieces.back(), Some(&Piece::Silence(8)));
        let mut queue = Queue::default();
        for _ in 0..MOST_PIECES {
            queue.silence(1);
            queue.frames(&[[1, 1]]);
        }
        assert!(queue.pieces.len() <= MOST_PIECES + 1, "{}", queue.pieces.len());
    }

    #[test]
    fn what_cannot_be_a_recording_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(WavSink::create(&folder.path().join("none/a.wav"), 48_000).is_err());
        assert!(WavSink::create(folder.path(), 48_000).is_err());
    }

    #[test]
    fn a_host_that_refuses_ends_the_recording_and_nothing_else() {
        let sink = WavSink::create(Path::new("/dev/full"), 48_000);
        assert_eq!(sink.err().map(|error| error.kind()), Some(std::io::ErrorKind::StorageFull));
    }
}
