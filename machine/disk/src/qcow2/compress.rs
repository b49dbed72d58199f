//! Compressed clusters: raw deflate with a window of 4 KiB, or zstd ("Compressed Clusters Descriptor").

use std::io::Read;

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};

use super::header::Compression;
use crate::error::corrupt;

/// Window of deflate that other programs read, in bits.
const WINDOW: u8 = 12;
/// The library's own default.
const ZSTD_LEVEL: i32 = 3;

/// Unpacks data into exactly one cluster. What follows the compressed stream is not looked at.
pub(super) fn unpack(how: Compression, packed: &[u8], cluster: &mut [u8]) -> std::io::Result<()> {
    let unpacked = match how {
        Compression::Zlib => {
            let mut stream = Decompress::new(false);
            match stream.decompress(packed, cluster, FlushDecompress::Finish) {
                Ok(Status::Ok | Status::StreamEnd | Status::BufError) => stream.total_out(),
                Err(error) => return Err(corrupt(format!("compressed data can't be unpacked: {error}"))),
            }
        }
        Compression::Zstd => {
            let mut stream = zstd::stream::read::Decoder::with_buffer(packed)?;
            stream.window_log_max(27)?;
            let mut done = 0;
            while done < cluster.len() {
                match stream.read(&mut cluster[done..]) {
                    Ok(0) => break,
                    Ok(count) => done += count,
                    Err(error) => return Err(corrupt(format!("compressed data can't be unpacked: {error}"))),
                }
            }
            done as u64
        }
    };
    if unpacked == cluster.len() as u64 { Ok(()) } else { Err(corrupt("compressed data ends too early")) }
}

/// Packs a cluster, if that makes it smaller.
pub(super) fn pack(how: Compression, cluster: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    let packed = match how {
        Compression::Zlib => {
            let mut stream = Compress::new_with_window_bits(Level::default(), false, WINDOW);
            let mut packed = Vec::with_capacity(cluster.len());
            match stream.compress_vec(cluster, &mut packed, FlushCompress::Finish).map_err(std::io::Error::other)? {
                Status::StreamEnd => packed,
                Status::Ok | Status::BufError => return Ok(None),
            }
        }
        Compression::Zstd => zstd::bulk::compress(cluster, ZSTD_LEVEL)?,
    };
    Ok((packed.len() < cluster.len()).then_some(packed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let cluster: Vec<u8> = (0..65536_u32).map(|n| (n / 7) as u8).collect();
        for how in [Compression::Zlib, Compression::Zstd] {
            let mut packed = pack(how, &cluster).unwrap().unwrap();
            packed.resize(packed.len().next_multiple_of(512) + 512, 0xee);
            let mut found = vec![0; cluster.len()];
            unpack(how, &packed, &mut found).unwrap();
            assert!(found == cluster);
            assert!(unpack(how, &packed[..40], &mut found).is_err());
        }
    }

    #[test]
    fn noise_is_left_as_it_is() {
        let mut x = 1_u64;
        let mut noise = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 56) as u8
        };
        let cluster: Vec<u8> = (0..4096).map(|_| noise()).collect();
        for how in [Compression::Zlib, Compression::Zstd] {
            assert_eq!(pack(how, &cluster).unwrap(), None);
        }
    }
}
