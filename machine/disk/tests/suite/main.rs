//! Disk images against QEMU's tools: [`qcow2`], [`formats`], and writers that are killed ([`power`]).

#[path = "../common/mod.rs"]
mod common;
mod formats;
mod model;
mod power;
mod qcow2;
