//! Instructions whose elements each have an address or a mask of their own: AVX2 gathers and masked byte stores.

use iced_x86::{Instruction, Mnemonic, OpKind};
use lodge_x86::exception::Exception;

use crate::access::Privilege;
use crate::cpu::Cpu;
use crate::system::{Flow, Outcome};

/// Whether an instruction is one of them.
pub fn handles(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Vpgatherdd
            | M::Vpgatherdq
            | M::Vpgatherqd
            | M::Vpgatherqq
            | M::Vgatherdps
            | M::Vgatherdpd
            | M::Vgatherqps
            | M::Vgatherqpd
            | M::Maskmovdqu
            | M::Vmaskmovdqu
            | M::Maskmovq
            | M::Vmaskmovps
            | M::Vmaskmovpd
            | M::Vpmaskmovd
            | M::Vpmaskmovq
    )
}

/// Carries out one of them.
pub fn execute(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    match ins.mnemonic() {
        Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu | Mnemonic::Maskmovq => masked_store(cpu, ins),
        Mnemonic::Vmaskmovps | Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovd | Mnemonic::Vpmaskmovq => {
            masked_move(cpu, ins)
        }
        _ => gather(cpu, ins),
    }
}

fn element(vector: &[u8; 32], n: usize, bytes: usize) -> u64 {
    let mut value = [0; 8];
    value[..bytes].copy_from_slice(&vector[n * bytes..(n + 1) * bytes]);
    u64::from_le_bytes(value)
}

/// VPGATHER and VGATHER (SDM 2, VPGATHERDD): elements whose mask bit is set are loaded and their mask cleared, so that
/// a fault leaves what is done done.
fn gather(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let to = ins.op0_register();
    let mask = ins.op2_register();
    let index = ins.memory_index();
    if to.number() == mask.number() || to.number() == index.number() || mask.number() == index.number() {
        return Err(Exception::INVALID_OPCODE);
    }
    use Mnemonic as M;
    let (data, indices) = match ins.mnemonic() {
        M::Vpgatherdd | M::Vgatherdps => (4, 4),
        M::Vpgatherqd | M::Vgatherqps => (4, 8),
        M::Vpgatherdq | M::Vgatherdpd => (8, 4),
        _ => (8, 8),
    };
    let count = (index.size() / indices).min(to.size() / data);
    let mut ea = *ins;
    ea.set_memory_index(iced_x86::Register::None);
    let (base, segment) = cpu.effective(&ea);
    // Without a base it is the displacement that tells the address size.
    let based = ins.memory_base() != iced_x86::Register::None;
    let narrow = if based { ins.memory_base().size() == 4 } else { ins.memory_displ_size() == 4 };
    let wide = cpu.is_64() && !narrow;
    for n in 0..count {
        let selected = element(&cpu.vectors.0[mask.number()], n, data) >> (data * 8 - 1) & 1 != 0;
        if selected {
            let raw = element(&cpu.vectors.0[index.number()], n, indices);
            let offset = if indices == 4 { i64::from(raw as u32 as i32) as u64 } else { raw };
            let offset = base.wrapping_add(offset.wrapping_mul(ins.memory_index_scale().into()));
            let offset = if wide { offset } else { offset & 0xffff_ffff };
            let linear = cpu.in_segment(segment, offset, data as u64, false)?;
            let value = cpu.read_number(linear, data, Privilege::Current)?;
            cpu.vectors.0[to.number()][n * data..(n + 1) * data].copy_from_slice(&value.to_le_bytes()[..data]);
        }
        cpu.vectors.0[mask.number()][n * data..(n + 1) * data].fill(0);
    }
    // Both registers are zero above the elements.
    cpu.vectors.0[to.number()][count * data..].fill(0);
    cpu.vectors.0[mask.number()].fill(0);
    Ok(Flow::Next)
}

/// VMASKMOV and VPMASKMOV where the operand as a whole cannot be reached: only elements whose mask bit is set are, and
/// nothing changes unless all of those can be.
fn masked_move(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    use Mnemonic as M;
    let bytes = if matches!(ins.mnemonic(), M::Vmaskmovps | M::Vpmaskmovd) { 4 } else { 8 };
    let store = ins.op0_kind() == OpKind::Memory;
    let register = if store { ins.op2_register() } else { ins.op0_register() };
    let mask = cpu.vectors.0[ins.op1_register().number()];
    let (base, segment) = cpu.effective(ins);
    // As of any other operand, the address of the first byte is cut to 32 bits and not that of what follows (SDM 2C
    // "VPMASKMOV": the elements are those at mem + 4, mem + 8 and so on).
    let wide = cpu.is_64();
    let mut value = if store { cpu.vectors.0[register.number()] } else { [0; 32] };
    let mut chosen = Vec::with_capacity(8);
    for n in 0..register.size() / bytes {
        if element(&mask, n, bytes) >> (bytes * 8 - 1) & 1 == 0 {
            continue;
        }
        let offset = base.wrapping_add((n * bytes) as u64);
        let offset = if wide { offset } else { offset & 0xffff_ffff };
        let linear = cpu.in_segment(segment, offset, bytes as u64, store)?;
        if store {
            cpu.check_write(linear, bytes, Privilege::Current)?;
            chosen.push((n * bytes, linear));
        } else {
            cpu.read_linear(linear, &mut value[n * bytes..(n + 1) * bytes], Privilege::Current)?;
        }
    }
    for (at, linear) in chosen {
        cpu.write_linear(linear, &value[at..at + bytes], Privilege::Current)?;
    }
    if !store {
        cpu.vectors.0[register.number()] = value;
    }
    Ok(Flow::Next)
}

/// MASKMOVDQU and MASKMOVQ: bytes whose mask has its top bit set go to [rDI].
fn masked_store(cpu: &mut Cpu, ins: &Instruction) -> Outcome {
    let address_mask = match ins.op0_kind() {
        OpKind::MemorySegDI => 0xffff,
        OpKind::MemorySegEDI => 0xffff_ffff,
        _ => u64::MAX,
    };
    let (data, mask, length) = if ins.mnemonic() == Mnemonic::Maskmovq {
        (cpu.mmx(ins.op1_register().number()), cpu.mmx(ins.op2_register().number()), 8)
    } else {
        (cpu.vectors.0[ins.op1_register().number()], cpu.vectors.0[ins.op2_register().number()], 16)
    };
    let segment = crate::emit::probe::segment_of(ins, 3);
    let chosen: Vec<usize> = (0..length).filter(|&n| mask[n] & 0x80 != 0).collect();
    let mut targets = Vec::with_capacity(chosen.len());
    for &n in &chosen {
        let offset = cpu.gpr[7].wrapping_add(n as u64) & address_mask;
        let linear = cpu.in_segment(segment, offset, 1, true)?;
        cpu.check_write(linear, 1, Privilege::Current)?;
        targets.push(linear);
    }
    for (n, linear) in chosen.into_iter().zip(targets) {
        cpu.write_linear(linear, &data[n..=n], Privilege::Current)?;
    }
    if length == 8 {
        cpu.enter_mmx();
    }
    Ok(Flow::Next)
}
