//! What viewers look at.
//!
//! A [`Monitor`] outlives cards: a reset machine's new card is plugged in where the old one was. It draws when somebody
//! looks, at most once in [`Monitor::INTERVAL`], however many look; whoever wants what is shown at this moment gets it.
//! Viewers can wish for another size ([`Monitor::resize`]), of which each card is told that can tell its guest.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::edid;
use crate::screen::{Frame, Look, Mode, Screen};

/// What was shown at some moment.
pub struct Picture {
    /// Another picture has another number.
    pub serial: u64,
    /// Its pixels.
    pub frame: Frame,
}

/// What came of a wish for another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resizing {
    /// The card tells its guest, which may follow.
    Told,
    /// The card can't tell its guest, or there is none.
    Fixed,
    /// No monitor has that size.
    Impossible,
}

struct State {
    screen: Option<Weak<dyn Screen>>,
    look: Look,
    drawn: Option<Instant>,
    picture: Arc<Picture>,
    /// The size that was wished for last.
    preferred: Option<[u16; 2]>,
}

/// A place for a card to be plugged in, and for viewers to look at.
pub struct Monitor {
    state: Mutex<State>,
}

impl Default for Monitor {
    fn default() -> Self {
        let picture = Arc::new(Picture { serial: 0, frame: Self::no_signal() });
        Self { state: Mutex::new(State { screen: None, look: Look::default(), drawn: None, picture, preferred: None }) }
    }
}

impl Monitor {
    /// Least time between two pictures.
    pub const INTERVAL: Duration = Duration::from_millis(33);

    /// A monitor without a card.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn no_signal() -> Frame {
        Frame::black(640, 400)
    }

    /// Shows this card from now on, until it goes away.
    pub fn connect(&self, screen: Weak<dyn Screen>) {
        let mut state = self.state.lock();
        if let (Some(size), Some(screen)) = (state.preferred, screen.upgrade()) {
            // A card that can't tell its guest does not have to.
            screen.prefer(size);
        }
        state.screen = Some(screen);
        state.look = Look::default();
        state.drawn = None;
    }

    /// Someone wishes for so many pixels in a row, and rows. It is remembered for the card that comes after a reset.
    pub fn resize(&self, size: [u16; 2]) -> Resizing {
        if !size.iter().all(|side| edid::SIDES.contains(side)) {
            return Resizing::Impossible;
        }
        let mut state = self.state.lock();
        let Some(screen) = &state.screen else { return Resizing::Fixed };
        // Where a machine is about to be made anew there is no card; the next one hears of it.
        if screen.upgrade().is_some_and(|screen| !screen.prefer(size)) {
            return Resizing::Fixed;
        }
        state.preferred = Some(size);
        Resizing::Told
    }

    fn screen(&self) -> Option<Arc<dyn Screen>> {
        self.state.lock().screen.as_ref()?.upgrade()
    }

    /// What is shown, not older than [`Monitor::INTERVAL`]. Without a card: what was shown last.
    pub fn picture(&self) -> Arc<Picture> {
        self.not_older_than(Self::INTERVAL)
    }

    /// What is shown now. Without a card: what was shown last.
    pub fn picture_now(&self) -> Arc<Picture> {
        self.not_older_than(Duration::ZERO)
    }

    fn not_older_than(&self, age: Duration) -> Arc<Picture> {
        let mut state = self.state.lock();
        if state.drawn.is_none_or(|drawn| drawn.elapsed() >= age)
            && let Some(screen) = state.screen.as_ref().and_then(Weak::upgrade)
        {
            let frame = screen.look(&mut state.look);
            state.drawn = Some(Instant::now());
            if let Some(frame) = frame.filter(|frame| *frame != state.picture.frame) {
                state.picture = Arc::new(Picture { serial: state.picture.serial + 1, frame });
            }
        }
        state.picture.clone()
    }

    /// The mode that is set; `None` without a card.
    pub fn mode(&self) -> Option<Mode> {
        Some(self.screen()?.mode())
    }

    /// In text modes, what can be read.
    pub fn text(&self) -> Option<String> {
        self.screen()?.text()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Default)]
    struct Card {
        colour: AtomicU32,
        drawn: AtomicU32,
    }

    impl Screen for Card {
        fn mode(&self) -> Mode {
            Mode::Graphics { width: 1, height: 1, depth: 32 }
        }
        fn look(&self, last: &mut Look) -> Option<Frame> {
            let colour = self.colour.load(Ordering::SeqCst);
            if last.stamp.replace(colour.into()) == Some(colour.into()) {
                return None;
            }
            self.drawn.fetch_add(1, Ordering::SeqCst);
            Some(Frame { width: 1, height: 1, pixels: vec![colour] })
        }
        fn text(&self) -> Option<String> {
            Some("text".into())
        }
    }

    #[test]
    fn pictures_change_with_the_card_and_not_more_often_than_they_may() {
        let monitor = Monitor::new();
        assert_eq!((monitor.picture().frame.width, monitor.text()), (640, None));
        let card = Arc::new(Card::default());
        let face: Arc<dyn Screen> = card.clone();
        monitor.connect(Arc::downgrade(&face));
        let first = monitor.picture();
        assert_eq!((first.serial, first.frame.width), (1, 1));
        card.colour.store(7, Ordering::SeqCst);
        std::thread::sleep(Monitor::INTERVAL);
        let second = monitor.picture();
        assert_eq!((second.serial, second.frame.pixel(0, 0)), (2, 7));
        std::thread::sleep(Monitor::INTERVAL);
        assert_eq!(monitor.picture().serial, 2, "nothing has changed");
        assert_eq!(card.drawn.load(Ordering::SeqCst), 2);
        card.colour.store(8, Ordering::SeqCst);
        let begin = Instant::now();
        let mut looks = 0;
        while monitor.picture().serial == 2 {
            looks += 1;
        }
        assert!(looks > 1, "{looks} looks in {:?}", begin.elapsed());
        // Whoever wants it now does not wait.
        for colour in 9..12 {
            card.colour.store(colour, Ordering::SeqCst);
            assert_eq!(monitor.picture_now().frame.pixel(0, 0), colour);
        }
        assert_eq!(monitor.text().as_deref(), Some("text"));
        drop((card, face));
        assert_eq!((monitor.picture().serial, monitor.text()), (6, None), "the last picture stays");
    }

    /// A card whose guest listens.
    #[derive(Default)]
    struct Listening(Mutex<Vec<[u16; 2]>>);

    impl Screen for Listening {
        fn mode(&self) -> Mode {
            Mode::Graphics { width: 1, height: 1, depth: 32 }
        }
        fn look(&self, _: &mut Look) -> Option<Frame> {
            None
        }
        fn text(&self) -> Option<String> {
            None
        }
        fn prefer(&self, size: [u16; 2]) -> bool {
            self.0.lock().push(size);
            true
        }
    }

    #[test]
    fn wishes_for_a_size_are_told_to_cards_that_listen() {
        let monitor = Monitor::new();
        assert_eq!(monitor.resize([800, 600]), Resizing::Fixed, "there is no card");
        let deaf: Arc<dyn Screen> = Arc::new(Card::default());
        monitor.connect(Arc::downgrade(&deaf));
        assert_eq!(monitor.resize([800, 600]), Resizing::Fixed);
        let card = Arc::new(Listening::default());
        let face: Arc<dyn Screen> = card.clone();
        monitor.connect(Arc::downgrade(&face));
        assert_eq!(monitor.resize([801, 601]), Resizing::Told);
        for size in [[0, 600], [63, 600], [800, 63], [4096, 600], [800, 0xffff]] {
            assert_eq!(monitor.resize(size), Resizing::Impossible);
        }
        assert_eq!(*card.0.lock(), [[801, 601]]);
        // The next one, after a reset, hears of it at once.
        let next = Arc::new(Listening::default());
        let face: Arc<dyn Screen> = next.clone();
        monitor.connect(Arc::downgrade(&face));
        assert_eq!(*next.0.lock(), [[801, 601]]);
        // So does one that is not there yet when someone wishes.
        drop((next, face));
        assert_eq!(monitor.resize([802, 602]), Resizing::Told);
        let last = Arc::new(Listening::default());
        let face: Arc<dyn Screen> = last.clone();
        monitor.connect(Arc::downgrade(&face));
        assert_eq!(*last.0.lock(), [[802, 602]]);
    }
}
