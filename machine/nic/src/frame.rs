//! Frames in saved state.

use lodge_net::{Checksum, Frame, LARGEST, Offload, Segmentation};
use serde::{Deserialize, Serialize};

/// A frame that is in a card while the machine is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FrameState {
    /// Its bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Its checksum need not be looked at.
    pub good: bool,
    /// Its checksum is missing: over what is from here on, and where it is from there.
    pub missing: Option<(u16, u16)>,
    /// It is to be cut into segments of so many bytes.
    pub segment: Option<u16>,
}

impl FrameState {
    /// Whether it has a size that frames have.
    pub(crate) fn is_sound(&self) -> bool {
        self.bytes.len() <= LARGEST
    }
}

impl From<Frame> for FrameState {
    fn from(frame: Frame) -> Self {
        let missing = match frame.offload.checksum {
            Checksum::Missing { start, offset } => Some((start, offset)),
            _ => None,
        };
        Self {
            good: frame.offload.checksum == Checksum::Good,
            missing,
            segment: frame.offload.segmentation.map(|segmentation| segmentation.size),
            bytes: frame.bytes,
        }
    }
}

impl From<FrameState> for Frame {
    fn from(state: FrameState) -> Self {
        let checksum = match state.missing {
            Some((start, offset)) => Checksum::Missing { start, offset },
            None if state.good => Checksum::Good,
            None => Checksum::There,
        };
        // No card here tells of congestion.
        let segmentation = state.segment.map(|size| Segmentation { size, congestion: false });
        Self { bytes: state.bytes, offload: Offload { checksum, segmentation } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_same_after_all() {
        let segmentation = Some(Segmentation { size: 1460, congestion: false });
        for checksum in [Checksum::There, Checksum::Good, Checksum::Missing { start: 34, offset: 16 }] {
            for segmentation in [None, segmentation] {
                let frame = Frame { bytes: vec![7; 60], offload: Offload { checksum, segmentation } };
                let state = FrameState::from(frame.clone());
                assert!(state.is_sound());
                assert_eq!(Frame::from(state), frame);
            }
        }
    }
}
