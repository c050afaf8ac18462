//! How the process begins and ends.

use std::time::Duration;

use clap::Args;

use super::values;

/// The flags of how the process begins and ends.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct LifecycleArguments {
    /// Who may connect to sockets in the file system: the mode of the file, in octal digits
    #[arg(long, env = "SCHEMABRIDGE_LISTEN_MODE", value_name = "MODE", default_value = "0660", value_parser = values::file_mode)]
    pub listen_mode: u32,

    /// How long connections are still taken after a SIGTERM, while /readyz says that there will soon be none; as long as it
    /// takes whatever leads clients here to notice: 5s to 15s in Kubernetes
    #[arg(long, env = "SCHEMABRIDGE_DRAIN_DELAY", value_name = "DURATION", default_value = "0s", value_parser = values::duration)]
    pub drain_delay: Duration,

    /// How long answers under way may take to finish after that, before their connections are cut
    #[arg(long, env = "SCHEMABRIDGE_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    pub drain_timeout: Duration,
}
