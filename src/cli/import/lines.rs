//! Which line of a file a byte is on, while another reader is in front of it, and whether the file ended
//! inside a quoted cell.
//!
//! Used by `table.rs`: the line numbers of the csv crate are those of the end of the row before, so
//! they are too small after blank lines and wherever lines end in CR LF; and it takes a row whose quote is
//! left open for a whole one, with the rest of the file in its last cell.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;

/// Line ends passed on behind the end of a file: the first ends a row that has none, the second is blank,
/// unless both are still inside a cell.
const LINE_ENDS_BEHIND: u8 = 2;

/// Passes a file on and remembers where its lines end.
pub(super) struct Watched<R> {
    file: R,
    /// Bytes passed on.
    at: u64,
    ends: Rc<RefCell<VecDeque<u64>>>,
    /// Its length, once its end has come.
    length: Rc<Cell<Option<u64>>>,
    /// Line ends passed on behind it.
    behind: u8,
}

/// Numbers the lines of a [`Watched`] file; asked in the order of the file.
pub(super) struct Lines {
    /// Where the line ends that were not passed yet are, at most a buffer full.
    ends: Rc<RefCell<VecDeque<u64>>>,
    length: Rc<Cell<Option<u64>>>,
    passed: u64,
}

/// Puts a watch between a file and its reader.
pub(super) fn watch<R>(file: R) -> (Watched<R>, Lines) {
    let (ends, length) = (Rc::new(RefCell::new(VecDeque::new())), Rc::new(Cell::new(None)));
    let lines = Lines { ends: Rc::clone(&ends), length: Rc::clone(&length), passed: 0 };
    (Watched { file, at: 0, ends, length, behind: 0 }, lines)
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A terminal that has said that it is over is not asked again.
        let read = if self.length.get().is_some() { 0 } else { self.file.read(buffer)? };
        if read == 0 && !buffer.is_empty() && self.behind < LINE_ENDS_BEHIND {
            self.length.set(Some(self.at));
            self.behind += 1;
            buffer[0] = b'\n';
            return Ok(1);
        }
        self.ends.borrow_mut().extend(memchr::memchr_iter(b'\n', &buffer[..read]).map(|i| self.at + i as u64));
        self.at += read as u64;
        Ok(read)
    }
}

impl Lines {
    /// The number, from 1, of the line that holds this byte; not less than the last one asked for.
    pub(super) fn line_of(&mut self, byte: u64) -> u64 {
        let mut ends = self.ends.borrow_mut();
        while ends.front().is_some_and(|end| *end < byte) {
            ends.pop_front();
            self.passed += 1;
        }
        self.passed + 1
    }

    /// Whether a row that was read up to this byte swallowed the end of the file in a quoted cell.
    pub(super) fn is_beyond(&self, byte: u64) -> bool {
        self.length.get().is_some_and(|length| byte > length + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_end_belongs_to_its_line() {
        let (mut file, mut lines) = watch("ab\n\nc\r\nd".as_bytes());
        let mut read = [0; 3];
        // Read in pieces, as a buffer does.
        while file.read(&mut read).unwrap() > 0 {}
        let got: Vec<u64> = (0..8).map(|byte| lines.line_of(byte)).collect();
        assert_eq!(got, [1, 1, 1, 2, 3, 3, 3, 4]);
        // Behind its end, in which two more line ends were read.
        assert_eq!([8, 9, 10].map(|byte| lines.is_beyond(byte)), [false, false, true]);
    }
}
