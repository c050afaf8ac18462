//! The log's way to standard error.
//!
//! Lines gather in memory and one thread writes them out, many at a time. So an answer waits neither for the lock of
//! standard error, which every request would take, nor for whoever reads the log: a pipe that nobody empties costs lines,
//! which are counted, and not answers.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many bytes may wait to be written. Lines beyond them are lost.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// How long the first of some lines waits for others to be written with it.
const GATHERING: Duration = Duration::from_millis(5);

/// Takes lines from any thread, as a [`tracing_subscriber::fmt::MakeWriter`] when shared.
pub(super) struct Lines {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    lost: u64,
    closed: bool,
}

/// Writes what is left when it is dropped.
pub(super) struct Writer {
    lines: Arc<Lines>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread that writes lines to `sink`.
    pub(super) fn start(mut sink: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Arc::new(Lines { waiting: Mutex::default(), changed: Condvar::new() });
        let taken = Arc::clone(&lines);
        let write = move || {
            let mut text = Vec::new();
            while taken.take(&mut text) {
                // There is nowhere to say that the log cannot be written.
                let _ = sink.write_all(&text).and_then(|()| sink.flush());
                taken.report_lost();
            }
        };
        let thread = Some(std::thread::Builder::new().name("log".to_owned()).spawn(write)?);
        Ok(Self { lines, thread })
    }

    /// Where lines are put.
    pub(super) fn lines(&self) -> Arc<Lines> {
        Arc::clone(&self.lines)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lines.lock().closed = true;
        self.lines.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines and swaps them into `text`. False when there are none and there will be none.
    fn take(&self, text: &mut Vec<u8>) -> bool {
        text.clear();
        let waiting = self.changed.wait_while(self.lock(), |waiting| waiting.text.is_empty() && !waiting.closed);
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let gathered = self.changed.wait_timeout_while(waiting, GATHERING, |waiting| !waiting.closed);
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut waiting.text, text);
        !text.is_empty()
    }

    fn report_lost(&self) {
        let lost = std::mem::take(&mut self.lock().lost);
        if lost > 0 {
            tracing::warn!(lines = lost, "lines of the log were lost, because nobody read it in time");
        }
    }
}

impl Write for &Lines {
    /// One line, as the log's formatter gives it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.lock();
        if waiting.closed {
            drop(waiting);
            return io::stderr().write(line);
        }
        if waiting.text.len() + line.len() > WAITING_BYTES_MAX {
            waiting.lost += 1;
            return Ok(line.len());
        }
        let is_first = waiting.text.is_empty();
        waiting.text.extend_from_slice(line);
        drop(waiting);
        if is_first {
            self.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Passes on what is written, each time only after it was let.
    struct Gate {
        lets: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.lets.recv();
            let _ = self.written.send(text.to_owned());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Gate, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let ((open, lets), (written, read)) = (mpsc::channel(), mpsc::channel());
        (Gate { lets, written }, open, read)
    }

    #[test]
    fn every_line_is_written_in_order_by_the_end() {
        let (sink, open, read) = gate();
        drop(open);
        let writer = Writer::start(sink).unwrap();
        let lines = writer.lines();
        let expected: Vec<String> = (0..1000).map(|number| format!("line {number}\n")).collect();
        for line in &expected {
            (&*lines).write_all(line.as_bytes()).unwrap();
        }
        drop(writer);
        assert_eq!(String::from_utf8(read.iter().flatten().collect()).unwrap(), expected.concat());
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_holds_up_nobody() {
        let (sink, open, read) = gate();
        let writer = Writer::start(sink).unwrap();
        let lines = writer.lines();
        let line = vec![b'x'; 1 << 16];
        let fits = WAITING_BYTES_MAX / line.len();
        // Whether or not a part of them is with the standing reader already, some are too many.
        for _ in 0..3 * fits {
            (&*lines).write_all(&line).unwrap();
        }
        let lost = lines.lock().lost;
        assert!((1..=2 * fits as u64).contains(&lost), "{lost}");
        drop(open);
        drop(writer);
        let written: usize = read.iter().map(|text| text.len()).sum();
        assert_eq!(written + usize::try_from(lost).unwrap() * line.len(), 3 * fits * line.len());
    }
}
