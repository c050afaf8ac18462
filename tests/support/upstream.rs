//! An upstream registry in this process.

use tokio::net::TcpSocket;

use super::images::{Document, Image};
use super::registry::Contents;
use super::server::Server;

pub use super::server::Recorded;

/// A registry, and anything else that answers beside it: token server, blob store behind a redirect.
pub type Upstream = Server<Contents>;

/// A registry that is not up yet: its port is taken, and every connection to it refused.
pub struct Absent {
    socket: TcpSocket,
}

impl Absent {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self { socket }
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.socket.local_addr().unwrap())
    }

    /// It comes up, empty.
    pub fn come_up(self) -> Upstream {
        Upstream::on(self.socket.listen(1024).unwrap(), Contents::new)
    }
}

impl Upstream {
    /// A registry that holds `app:latest`, an OCI image.
    pub async fn with_app() -> (Self, Image) {
        let upstream = Self::start().await;
        let image = Image::classic("app");
        upstream.put_image("app", "latest", &image, &image.oci());
        (upstream, image)
    }

    /// An empty registry that everyone may read, on a free port.
    pub async fn start() -> Self {
        Self::start_with(Contents::new).await
    }

    /// Stores a document in the repository, under the tag if one is given.
    pub fn put(&self, repository: &str, tag: impl Into<Option<&'static str>>, document: &Document) {
        self.contents().put(repository, tag.into(), document);
    }

    /// Stores the blobs of an image in the repository and one of its documents under the tag.
    pub fn put_image(&self, repository: &str, tag: &'static str, image: &Image, document: &Document) {
        let mut contents = self.contents();
        for blob in image.blobs() {
            contents.put_blob(repository, blob);
        }
        contents.put(repository, Some(tag), document);
    }
}
