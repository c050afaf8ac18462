//! How serving ends: in steps, which whoever asked for the end takes one after the other.

use tokio_util::sync::CancellationToken;

/// The end of serving. Nothing of it has begun until the first step is taken, and each step is one after those before it.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    leaving: CancellationToken,
    closing: CancellationToken,
    cutting: CancellationToken,
}

impl Stop {
    /// Clients are told with each answer to come back over another connection. Connections are taken still.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// No connection is taken any more, and those on which nothing is under way are closed.
    pub fn close(&self) {
        self.leave();
        self.closing.cancel();
    }

    /// Connections that are left are cut.
    pub fn cut(&self) {
        self.close();
        self.cutting.cancel();
    }

    /// Does this until no connection is taken any more.
    pub async fn until_closing<Work: Future>(&self, work: Work) -> Option<Work::Output> {
        self.closing.run_until_cancelled(work).await
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled()
    }

    pub(super) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    pub(super) async fn until_cutting<Work: Future>(&self, work: Work) -> Option<Work::Output> {
        self.cutting.run_until_cancelled(work).await
    }
}
