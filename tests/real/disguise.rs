//! A proxy that gives every request the headers of another client: real engines become clients that are not to be had here.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::guises::Guise;

/// Listens on a free port for as long as the test process lives, and passes every request on in this guise.
pub fn disguised(gateway: SocketAddr, guise: Guise) -> SocketAddr {
    disguised_in_turn(vec![gateway], guise)
}

/// The same for several gateways: each request goes to the next of them.
pub fn disguised_in_turn(gateways: Vec<SocketAddr>, guise: Guise) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (connection, gateway) in listener.incoming().flatten().zip(gateways.into_iter().cycle()) {
            // A connection that breaks is for the client at its other end to report.
            thread::spawn(move || pass_on(connection, gateway, |head| rewritten(head, guise)));
        }
    });
    address
}

/// One request of one connection: the head rewritten, the body and the answer as they come. `rewrite` must see to it that the
/// connection ends with the answer.
pub fn pass_on(mut client: TcpStream, server: SocketAddr, rewrite: impl Fn(&str) -> String) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(client.try_clone()?);
    while !head.ends_with("\r\n\r\n") {
        // What is no text is a TLS greeting: engines try that first, and go on in plain HTTP after this answer.
        let read = reader.read_line(&mut head);
        if !matches!(read, Ok(1..)) || !head.contains(" HTTP/1.") {
            return client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    }
    let mut server = TcpStream::connect(server)?;
    server.write_all(rewrite(&head).as_bytes())?;
    let mut to_server = server.try_clone()?;
    // Ends with the connection: nobody says how long a body is.
    let sending = thread::spawn(move || std::io::copy(&mut reader, &mut to_server));
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)?;
    let _ = sending.join();
    Ok(())
}

/// The head of a request with the headers of the guise, on a connection that ends with its answer.
fn rewritten(head: &str, guise: Guise) -> String {
    let kept = head.trim_end().split("\r\n").filter(|line| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !["accept", "user-agent", "connection"].contains(&name.as_str())
    });
    let accept = guise.accept.map(|types| format!("Accept: {types}"));
    let own = [format!("User-Agent: {}", guise.user_agent), "Connection: close".to_owned()].into_iter().chain(accept);
    kept.map(str::to_owned).chain(own).map(|line| line + "\r\n").chain(["\r\n".to_owned()]).collect()
}
