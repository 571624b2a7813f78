//! Takes the terminal for `watch`, draws the state as it changes, and hears the keys.
//!
//! Called by `watch.rs`. Guarantees: the terminal is given back however it ends: by a key, by SIGINT, SIGTERM or
//! SIGHUP, by an error, by a panic of any thread.

use super::screen::{self, Look};
use super::state::{State, Update};
use crate::clock::Clock;
use anyhow::{Context, bail};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// From what happens to its picture at most; statistics come every 250 ms.
const TICK: Duration = Duration::from_millis(100);

/// How soon a signal must have been heard, a panic reported, and a terminal missed.
const SOON: Duration = Duration::from_secs(1);

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    End,
    /// The source so many further down.
    Choose(isize),
    Nothing,
}

/// Gives the terminal back when dropped, unless a panic has done so: its report would be written over.
struct Taken {
    panicked: Arc<AtomicBool>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.panicked.load(Ordering::Relaxed) {
            ratatui::restore();
        }
    }
}

/// Shows the state, with what happens, until a key or a signal ends it.
pub(super) fn run(updates: &Receiver<Update>, mut state: State, look: &Look) -> anyhow::Result<()> {
    const ENDED: &str = "what listens to the service has ended by itself";
    const REFUSED: &str = "cannot take the terminal: --plain prints lines instead";
    let ended = ended_from_outside()?;
    let taken = Taken { panicked: Arc::default() };
    // Its hook gives the terminal back before a panic is reported.
    let mut terminal = ratatui::try_init().context(REFUSED)?;
    tell_of_panics(Arc::clone(&taken.panicked));
    while !ended.load(Ordering::Relaxed) {
        if taken.panicked.load(Ordering::Relaxed) {
            // Its report is being written where the screen was.
            std::thread::sleep(SOON);
            bail!(ENDED);
        }
        let now = Clock::System.now();
        loop {
            match updates.try_recv() {
                Ok(update) => state.apply(update, now),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => bail!(ENDED),
            }
        }
        // Takes a new size of the terminal by itself.
        terminal.draw(|frame| screen::draw(frame, &state, look, now)).context(REFUSED)?;
        if !event::poll(TICK).context(REFUSED)? {
            continue;
        }
        if let Event::Key(key) = event::read().context(REFUSED)? {
            match wish(key) {
                Wish::End => break,
                Wish::Choose(further) => state.choose(further),
                Wish::Nothing => {}
            }
        }
    }
    Ok(())
}

fn wish(key: KeyEvent) -> Wish {
    match key.code {
        _ if key.is_release() => Wish::Nothing,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Wish::End,
        KeyCode::Char('q') | KeyCode::Esc => Wish::End,
        KeyCode::Tab | KeyCode::Down | KeyCode::Char('j') => Wish::Choose(1),
        KeyCode::BackTab | KeyCode::Up | KeyCode::Char('k') => Wish::Choose(-1),
        _ => Wish::Nothing,
    }
}

/// Sets it before a panic of any thread is reported: nothing may be drawn over that.
fn tell_of_panics(panicked: Arc<AtomicBool>) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        panicked.store(true, Ordering::Relaxed);
        report(panic);
    }));
}

/// Set once a signal asks the process to end, which by itself would end without giving the terminal back, or the
/// terminal has gone without a signal. Ends the process a little later in any case.
fn ended_from_outside() -> io::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    };
    let [interrupt, terminate, hangup] = signals;
    let (mut interrupt, mut terminate, mut hangup) = (interrupt?, terminate?, hangup?);
    let told = Arc::clone(&ended);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                // Only the leader of the session is told, and may keep it to himself.
                () = gone() => {}
            }
        });
        told.store(true, Ordering::Relaxed);
        std::thread::sleep(SOON);
        // Of a terminal that has gone away no key is ever read, and the reading never ends.
        ratatui::restore();
        std::process::exit(0);
    });
    Ok(ended)
}

/// Returns when standard output is no terminal any more.
async fn gone() {
    while io::stdout().is_terminal() {
        tokio::time::sleep(SOON).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let check = |code: KeyCode, modifiers: KeyModifiers, expected: Wish| {
            assert_eq!(wish(KeyEvent::new(code, modifiers)), expected, "{code:?} {modifiers:?}");
        };
        check(KeyCode::Char('q'), KeyModifiers::NONE, Wish::End);
        check(KeyCode::Esc, KeyModifiers::NONE, Wish::End);
        check(KeyCode::Char('c'), KeyModifiers::CONTROL, Wish::End);
        check(KeyCode::Char('c'), KeyModifiers::NONE, Wish::Nothing);
        check(KeyCode::Tab, KeyModifiers::NONE, Wish::Choose(1));
        check(KeyCode::BackTab, KeyModifiers::SHIFT, Wish::Choose(-1));
        check(KeyCode::Up, KeyModifiers::NONE, Wish::Choose(-1));
        check(KeyCode::Enter, KeyModifiers::NONE, Wish::Nothing);
    }
}
