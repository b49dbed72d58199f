//! How devices act on the machine as a whole.

/// What a device may ask of the whole machine. Calls come from vCPU threads with a device lock held: an implementation
/// takes note, gets the attention of whoever acts on it, and returns.
pub trait SystemControl: Send + Sync {
    /// The guest switched the machine off.
    fn power_off(&self);

    /// The guest reset the machine.
    fn reset(&self);

    /// The guest reset the processors alone: INIT is asserted on all, as the keyboard controller, port 92h and a
    /// shutdown do. What is a restart rather than a way back to real mode, firmware tells by a byte in CMOS memory.
    fn reset_processors(&self);

    /// The guest put the machine to sleep (ACPI S3): processors and devices lose their state, memory keeps its own.
    fn suspend(&self);

    /// Something wakes the machine up.
    fn wake(&self);

    /// The guest ends the machine with this exit status (the debug exit port).
    fn exit(&self, status: u8);
}
