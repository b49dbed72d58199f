//! A vCPU's state as a whole: taken over, given, reset, and what is derived from it.

use lodge_x86::bits::{cr0, cr4};
use lodge_x86::paging::PagingContext;
use lodge_x86::state::CpuState;

use crate::context::After;
use crate::cpu::Cpu;
use crate::mode::Mode;
use crate::partition::PHYSICAL_BITS;

impl Cpu {
    /// Brings everything that is derived from control registers and the like up to date.
    pub fn refresh(&mut self) {
        let paging = PagingContext::new(self.cr0, self.cr3, self.cr4, self.msrs.efer, PHYSICAL_BITS);
        self.context().paging = paging;
        self.renew_walk(&paging);
        self.mirrored = self.is_shown();
        self.renew_branches();
        self.context().regions.keep_globals = self.cr4 & cr4::PGE != 0;
        let real = self.is_real() || self.is_v86();
        for segment in &mut self.segment {
            *segment = crate::cpu::HotSegment::new(segment.segment, real);
        }
        self.mode = Mode::of(self).0;
        self.renew_sides();
    }

    /// Takes over a whole state.
    pub fn import(&mut self, state: &CpuState) {
        self.gpr = state.gpr;
        for (hot, segment) in self.segment.iter_mut().zip(state.segment) {
            hot.segment = segment;
        }
        (self.ldtr, self.tr, self.gdtr, self.idtr) = (state.ldtr, state.tr, state.gdtr, state.idtr);
        (self.cr0, self.cr2, self.cr3, self.cr4) = (state.cr0 | cr0::ET, state.cr2, state.cr3, state.cr4);
        self.xcr0 = state.xcr0;
        self.dr = state.dr;
        self.msrs = state.msrs.clone();
        self.nmi_blocked = state.nmi_blocked;
        self.set_rflags(state.rflags);
        self.import_fpu(&state.xsave);
        self.context().activity = state.activity;
        self.context().shadow = state.interrupt_shadow;
        self.context().after = After::Continue;
        self.refresh();
        self.set_rip(state.rip);
        let pcid = self.current_pcid();
        self.context().regions.flush_all();
        self.flush_mirror();
        self.switch_region(pcid, false);
    }

    /// Gives the whole state.
    pub fn export(&mut self) -> CpuState {
        let xsave = self.export_fpu();
        let tsc = self.host_tsc().wrapping_add(self.tsc_offset);
        let (activity, shadow) = (self.context().activity, self.context().shadow);
        CpuState {
            gpr: self.gpr,
            rip: self.rip(),
            rflags: self.rflags(),
            segment: self.segment.map(|hot| hot.segment),
            ldtr: self.ldtr,
            tr: self.tr,
            gdtr: self.gdtr,
            idtr: self.idtr,
            cr0: self.cr0,
            cr2: self.cr2,
            cr3: self.cr3,
            cr4: self.cr4,
            xcr0: self.xcr0,
            dr: self.dr,
            msrs: self.msrs.clone(),
            tsc,
            xsave,
            activity,
            nmi_blocked: self.nmi_blocked,
            interrupt_shadow: shadow,
        }
    }

    /// INIT: RESET but for x87, SSE and AVX state, MSRs and the caches' bits (SDM 3A table 9-1).
    pub fn init(&mut self, signature: u32) {
        let mut state = CpuState::reset(signature);
        let old = self.export();
        state.xsave = old.xsave;
        state.xcr0 = old.xcr0;
        let efer = state.msrs.efer;
        state.msrs = old.msrs;
        state.msrs.efer = efer;
        state.cr0 |= old.cr0 & (cr0::CD | cr0::NW);
        self.import(&state);
    }

    /// A start-up IPI: real mode at `page` times 0x1000.
    pub fn start_up(&mut self, page: u8) {
        let cs = &mut self.segment[1].segment;
        cs.selector = u16::from(page) << 8;
        cs.base = u64::from(page) << 12;
        cs.limit = 0xffff;
        self.refresh();
        self.set_rip(0);
    }
}
