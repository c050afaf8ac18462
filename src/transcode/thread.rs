//! Threads that work on layers. They have their own, because the process's others must not stand behind them, neither in a
//! queue nor at the processors.

use tokio::sync::oneshot;

use super::Fault;

/// How much whoever works on layers stands back behind the rest of the process. At a processor that both want, they get a
/// tenth, and whoever answers a request need not wait for the end of their time slice.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Runs work that takes long, on a thread of its own that ends with it: its lower priority cannot be taken back.
pub(super) async fn run<Output: Send + 'static>(
    work: impl FnOnce() -> Result<Output, Fault> + Send + 'static,
) -> Result<Output, Fault> {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("layers".to_owned()).spawn(move || {
        stand_back();
        // Nobody may wait for it any more.
        let _ = sender.send(work());
    });
    thread.map_err(|_| Fault::Internal)?;
    receiver.await.unwrap_or(Err(Fault::Internal))
}

#[cfg(target_os = "linux")]
fn stand_back() {
    // On Linux this is about the thread that calls. Where it is forbidden, as by the systemd unit of `deploy/`, the work is
    // done all the same.
    let stood_back = rustix::process::getpriority_process(None).and_then(|niceness| {
        // Never the other way round, in a process that as a whole stands back further.
        if niceness < NICENESS { rustix::process::setpriority_process(None, NICENESS) } else { Ok(()) }
    });
    if let Err(error) = stood_back {
        tracing::debug!(%error, "work on layers has the priority of everything else");
    }
}

#[cfg(not(target_os = "linux"))]
const fn stand_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The niceness of the thread that calls (proc(5): field 19).
    #[cfg(target_os = "linux")]
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields = stat.rsplit(')').next().unwrap();
        fields.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn whoever_works_on_layers_stands_back_and_nobody_else() {
        let before = niceness();
        let within = run(|| Ok(niceness())).await.unwrap();
        assert_eq!(within, before.max(NICENESS));
        assert_eq!(niceness(), before);
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_a_fault() {
        let fault = run(|| -> Result<(), Fault> { std::panic::resume_unwind(Box::new(())) }).await;
        assert!(matches!(fault, Err(Fault::Internal)));
    }
}
