//! Which line of a file a byte is on, while another reader is in front of it.
//!
//! Used by `table.rs`: the line numbers of the csv crate are those of the end of the row before, so
//! they are too small after blank lines and wherever lines end in CR LF.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;

/// Passes a file on and remembers where its lines end.
pub(super) struct Watched<R> {
    file: R,
    /// Bytes passed on.
    at: u64,
    ends: Rc<RefCell<VecDeque<u64>>>,
}

/// Numbers the lines of a [`Watched`] file; asked in the order of the file.
pub(super) struct Lines {
    /// Where the line ends that were not passed yet are, at most a buffer full.
    ends: Rc<RefCell<VecDeque<u64>>>,
    passed: u64,
}

/// Puts a watch between a file and its reader.
pub(super) fn watch<R>(file: R) -> (Watched<R>, Lines) {
    let ends = Rc::new(RefCell::new(VecDeque::new()));
    (Watched { file, at: 0, ends: Rc::clone(&ends) }, Lines { ends, passed: 0 })
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
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
    }
}
