//! As much of Redis' protocol as the benchmark needs: a ping, the memory in use, and pipelines of
//! commands whose answers are only counted.
//!
//! Used by the baseline, which is what a service without folding would do, and by the memory
//! section. The service itself speaks to Redis through its own client.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// No answer takes this long unless Redis hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

pub(crate) struct Resp(BufReader<TcpStream>);

/// Commands sent in one go, with the number of lines of their answers.
#[derive(Default)]
pub(crate) struct Pipeline {
    bytes: Vec<u8>,
    answer_lines: usize,
}

impl Pipeline {
    /// Adds a command whose answer is an integer: one line.
    pub(crate) fn integer(&mut self, words: &[&str]) {
        self.command(words);
        self.answer_lines += 1;
    }

    /// Adds a command whose answer is a string without line ends: its length and itself.
    pub(crate) fn string(&mut self, words: &[&str]) {
        self.command(words);
        self.answer_lines += 2;
    }

    fn command(&mut self, words: &[&str]) {
        self.bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
    }
}

impl Resp {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to Redis at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn ping(&mut self) -> Result<()> {
        self.0.get_mut().write_all(b"PING\r\n")?;
        let answer = self.line()?;
        ensure!(answer == "+PONG", "Redis answered \"{answer}\"");
        Ok(())
    }

    /// Bytes Redis has allocated.
    pub(crate) fn used_memory(&mut self) -> Result<u64> {
        self.0.get_mut().write_all(b"INFO memory\r\n")?;
        let head = self.line()?;
        let length: usize = head.strip_prefix('$').context("INFO is not a string")?.parse()?;
        let mut info = vec![0; length + 2];
        self.0.read_exact(&mut info)?;
        let info = String::from_utf8(info)?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        Ok(used.context("INFO memory without used_memory")?.trim().parse()?)
    }

    /// Sends the commands and reads all their answers. The caller's strings never begin with `-`,
    /// so a line that does is an error.
    pub(crate) fn run(&mut self, pipeline: &Pipeline) -> Result<()> {
        self.0.get_mut().write_all(&pipeline.bytes)?;
        let mut line = Vec::new();
        for _ in 0..pipeline.answer_lines {
            line.clear();
            self.0.read_until(b'\n', &mut line)?;
            if line.first().is_none_or(|&b| b == b'-') {
                bail!("Redis answered \"{}\"", String::from_utf8_lossy(&line).trim_end());
            }
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}
