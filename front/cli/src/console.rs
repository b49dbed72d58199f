//! The serial console's escape keys: Ctrl-A is taken from the input, and what follows decides.
//!
//! ```text
//!   plain ──Ctrl-A──► escaped ──X──► quit
//!     ▲                  │──Ctrl-A──► one Ctrl-A to the guest
//!     │                  │──C──► prompt ──Enter──► a command, back to plain
//!     └──────────────────┘ anything else: nothing
//! ```
//!
//! [`Escapes`] is the state machine alone; [`crate::run`] feeds it and acts.

/// Ctrl-A.
const CTRL_A: u8 = 1;
/// Longest command at the prompt.
const LINE_MAX: usize = 64;

/// What the prompt understands.
pub const HELP: &str = "status, pause, resume, reset, quit";

/// What a key leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The byte goes to the guest.
    Pass(u8),
    /// Nothing.
    Nothing,
    /// Text to show the user, in raw terminal mode.
    Show(String),
    /// A command was given.
    Run(PromptCommand),
}

/// Commands at the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptCommand {
    Status,
    Pause,
    Resume,
    Reset,
    Quit,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Plain,
    Escaped,
    Prompt(Vec<u8>),
}

/// The state between keys.
#[derive(Debug, Default)]
pub struct Escapes {
    state: State,
}

impl Escapes {
    /// Takes a key.
    pub fn feed(&mut self, byte: u8) -> Action {
        match std::mem::take(&mut self.state) {
            State::Plain if byte == CTRL_A => {
                self.state = State::Escaped;
                Action::Nothing
            }
            State::Plain => Action::Pass(byte),
            State::Escaped => match byte {
                CTRL_A => Action::Pass(CTRL_A),
                b'x' | b'X' => Action::Run(PromptCommand::Quit),
                b'c' | b'C' => {
                    self.state = State::Prompt(Vec::new());
                    Action::Show("\r\nlodge> ".into())
                }
                _ => Action::Nothing,
            },
            State::Prompt(line) => self.prompt(line, byte),
        }
    }

    fn prompt(&mut self, mut line: Vec<u8>, byte: u8) -> Action {
        match byte {
            b'\r' | b'\n' => return command(&line),
            // Ctrl-C, Ctrl-D and Escape leave.
            3 | 4 | 27 => return Action::Show("\r\n".into()),
            8 | 127 => {
                let shown = if line.pop().is_some() { "\x08 \x08" } else { "" };
                self.state = State::Prompt(line);
                return Action::Show(shown.into());
            }
            b' '..=b'~' if line.len() < LINE_MAX => line.push(byte),
            _ => {
                self.state = State::Prompt(line);
                return Action::Nothing;
            }
        }
        self.state = State::Prompt(line);
        Action::Show(char::from(byte).into())
    }
}

fn command(line: &[u8]) -> Action {
    let text = String::from_utf8_lossy(line);
    match text.trim() {
        "" => Action::Show("\r\n".into()),
        "status" => Action::Run(PromptCommand::Status),
        "pause" => Action::Run(PromptCommand::Pause),
        "resume" => Action::Run(PromptCommand::Resume),
        "reset" => Action::Run(PromptCommand::Reset),
        "quit" => Action::Run(PromptCommand::Quit),
        other => Action::Show(format!("\r\n'{other}' is not a command; there are: {HELP}\r\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(keys: &[u8]) -> Vec<Action> {
        let mut escapes = Escapes::default();
        keys.iter().map(|key| escapes.feed(*key)).filter(|action| *action != Action::Nothing).collect()
    }

    #[test]
    fn plain_keys_pass() {
        assert_eq!(feed(b"x\x03\xff"), [Action::Pass(b'x'), Action::Pass(3), Action::Pass(0xff)]);
    }

    #[test]
    fn escapes_quit_and_escape_themselves() {
        assert_eq!(feed(b"\x01x"), [Action::Run(PromptCommand::Quit)]);
        assert_eq!(feed(b"\x01\x01a"), [Action::Pass(1), Action::Pass(b'a')]);
        assert_eq!(feed(b"\x01za"), [Action::Pass(b'a')]);
    }

    #[test]
    fn the_prompt_takes_a_line() {
        let actions = feed(b"\x01cpauzz\x7f\x7fse\rx");
        assert_eq!(actions.first(), Some(&Action::Show("\r\nlodge> ".into())));
        assert_eq!(actions[actions.len() - 2..], [Action::Run(PromptCommand::Pause), Action::Pass(b'x')]);
        let actions = feed(b"\x01cnonsense\ry");
        assert!(
            matches!(&actions[actions.len() - 2], Action::Show(text) if text.contains("'nonsense' is not a command"))
        );
        assert_eq!(actions.last(), Some(&Action::Pass(b'y')));
        assert_eq!(feed(b"\x01cquit\x03y").last(), Some(&Action::Pass(b'y')), "Ctrl-C leaves the prompt");
    }

    #[test]
    fn the_prompt_keeps_no_endless_line() {
        let mut escapes = Escapes::default();
        escapes.feed(1);
        escapes.feed(b'c');
        for _ in 0..10_000 {
            escapes.feed(b'a');
        }
        let Action::Show(text) = escapes.feed(b'\r') else { panic!() };
        assert!(text.len() < 200);
    }
}
