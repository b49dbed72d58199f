//! What a drive is to do next: orders, carried out in turn. A guest can give any number of them while a drive takes its
//! time, so that few are kept: where there would be more, the last for the lock and the last for the tray count.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::tray::Ejection;

/// Most orders that wait.
const MOST: usize = 16;

/// Something that a drive is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Hold the tray, or let go of it.
    Lock(bool),
    /// Open it.
    Eject(Arc<Ejection>),
    /// Close it; whether it was open when this was said.
    Close { moves: bool },
}

impl Order {
    /// Whether the guest has to wait for the tray.
    pub fn moves(&self) -> bool {
        matches!(self, Self::Eject(_) | Self::Close { moves: true })
    }
}

/// Orders that wait.
#[derive(Debug, Default)]
pub(super) struct Orders {
    waiting: VecDeque<Order>,
}

impl Orders {
    pub fn lock(&mut self, locked: bool) {
        match self.waiting.back_mut() {
            Some(Order::Lock(last)) => *last = locked,
            _ => self.push(Order::Lock(locked)),
        }
    }

    pub fn eject(&mut self) -> Arc<Ejection> {
        if let Some(Order::Eject(outcome)) = self.waiting.back() {
            return outcome.clone();
        }
        let outcome = Arc::new(Ejection::default());
        self.push(Order::Eject(outcome.clone()));
        outcome
    }

    pub fn close(&mut self, moves: bool) {
        match self.waiting.back_mut() {
            Some(Order::Close { moves: last }) => *last |= moves,
            _ => self.push(Order::Close { moves }),
        }
    }

    fn push(&mut self, order: Order) {
        if self.waiting.len() >= MOST {
            self.shorten();
        }
        self.waiting.push_back(order);
    }

    /// Keeps the last order for the lock and the last for the tray.
    fn shorten(&mut self) {
        let is_lock = |order: &Order| matches!(order, Order::Lock(_));
        let last = |wanted| self.waiting.iter().rposition(|order| is_lock(order) == wanted);
        let kept = [last(true), last(false)];
        let before = std::mem::take(&mut self.waiting);
        for (index, order) in before.into_iter().enumerate() {
            match order {
                order if kept.contains(&Some(index)) => self.waiting.push_back(order),
                Order::Eject(outcome) => outcome.tell(Err("the guest wanted otherwise meanwhile; try again".into())),
                _ => {}
            }
        }
    }

    /// The next one.
    pub fn next(&mut self) -> Option<Order> {
        self.waiting.pop_front()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the guest has to wait for the tray.
    pub fn moves(&self) -> bool {
        self.waiting.iter().any(Order::moves)
    }

    /// Whether there is one for the lock.
    pub fn locks(&self) -> bool {
        self.waiting.iter().any(|order| matches!(order, Order::Lock(_)))
    }
}
