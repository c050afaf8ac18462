//! A gateway that is told to stop finishes what it has begun and begins nothing more.

use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn an_answer_under_way_is_finished_and_no_connection_is_taken() {
    let upstream = Upstream::start().await;
    let content = vec![7_u8; 2_000_000];
    let digest = upstream.contents().put_blob("app", content.clone().into());
    let gateway = Gateway::before(&upstream).await;
    let address = gateway.address();
    let blob = format!("/v2/app/blobs/{digest}");
    let gate = upstream.when("GET", &blob).hold_body(1_000_000);
    let mut reading = Client::docker_20_10().get(&blob).open(address).await;
    reading.at_least(100_000).await;
    gate.reached(1).await;
    let stopping = tokio::spawn(gateway.stop());
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.open();
    reading.rest().await;
    let reply = reading.reply(false);
    assert!(reply.is_whole && reply.body == content);
    stopping.await.unwrap();
}
