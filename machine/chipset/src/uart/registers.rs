//! Registers of the 16550A (National Semiconductor PC16550D, section 8).

/// Ports of one UART.
pub const LENGTH: u16 = 8;
/// Bytes in each FIFO.
pub const FIFO: usize = 16;

/// Receiver buffer (read), transmitter holding (write), divisor low (DLAB).
pub const DATA: u16 = 0;
/// Interrupt enable (8.7), divisor high (DLAB).
pub const IER: u16 = 1;
/// Interrupt identification (8.6), FIFO control on writing (8.5).
pub const IIR: u16 = 2;
/// Line control (8.1).
pub const LCR: u16 = 3;
/// Modem control (8.8).
pub const MCR: u16 = 4;
/// Line status (8.4).
pub const LSR: u16 = 5;
/// Modem status (8.9).
pub const MSR: u16 = 6;
/// Scratch (8.10).
pub const SCR: u16 = 7;

/// IER: received data.
pub const IER_DATA: u8 = 1 << 0;
/// IER: transmitter holding register empty.
pub const IER_EMPTY: u8 = 1 << 1;
/// IER: line status.
pub const IER_LINE: u8 = 1 << 2;
/// IER: modem status.
pub const IER_MODEM: u8 = 1 << 3;

/// IIR: no interrupt.
pub const IIR_NONE: u8 = 0x01;
/// IIR: line status.
pub const IIR_LINE: u8 = 0x06;
/// IIR: received data.
pub const IIR_DATA: u8 = 0x04;
/// IIR: received data below the trigger level has waited.
pub const IIR_TIMEOUT: u8 = 0x0c;
/// IIR: transmitter holding register empty.
pub const IIR_EMPTY: u8 = 0x02;
/// IIR: modem status.
pub const IIR_MODEM: u8 = 0x00;
/// IIR: FIFOs enabled.
pub const IIR_FIFO: u8 = 0xc0;

/// FCR: enable.
pub const FCR_ENABLE: u8 = 1 << 0;
/// FCR: clear the receiver's.
pub const FCR_CLEAR_RX: u8 = 1 << 1;
/// FCR: clear the transmitter's.
pub const FCR_CLEAR_TX: u8 = 1 << 2;

/// LCR: divisor latch access.
pub const LCR_DLAB: u8 = 1 << 7;

/// MCR: data terminal ready.
pub const MCR_DTR: u8 = 1 << 0;
/// MCR: request to send.
pub const MCR_RTS: u8 = 1 << 1;
/// MCR: output 1.
pub const MCR_OUT1: u8 = 1 << 2;
/// MCR: output 2, which gates the interrupt on a PC.
pub const MCR_OUT2: u8 = 1 << 3;
/// MCR: loop-back.
pub const MCR_LOOP: u8 = 1 << 4;

/// LSR: data ready.
pub const LSR_DATA: u8 = 1 << 0;
/// LSR: overrun.
pub const LSR_OVERRUN: u8 = 1 << 1;
/// LSR: transmitter holding register empty.
pub const LSR_EMPTY: u8 = 1 << 5;
/// LSR: transmitter idle.
pub const LSR_IDLE: u8 = 1 << 6;

/// MSR: the far end is there: clear to send, data set ready, carrier.
pub const MSR_CONNECTED: u8 = 0xb0;
/// MSR: clear to send.
pub const MSR_CTS: u8 = 1 << 4;
/// MSR: data set ready.
pub const MSR_DSR: u8 = 1 << 5;
/// MSR: ring.
pub const MSR_RI: u8 = 1 << 6;
/// MSR: carrier.
pub const MSR_DCD: u8 = 1 << 7;
