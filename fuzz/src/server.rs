//! A site on a connection inside this process: the bytes of an input go through the server's own parser.

use actix_http::HttpService;
use actix_service::{Service as _, ServiceFactory as _};
use actix_web::rt::net::UnixStream;
use hookmill_actors::http::Site;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Sends `bytes` to `site` on a new connection, closes the way there, and returns all that comes back.
pub fn exchange(site: &Site, bytes: &[u8]) -> Vec<u8> {
    thread_local! {
        static SYSTEM: actix_web::rt::SystemRunner = actix_web::rt::System::new();
    }
    SYSTEM.with(|system| {
        system.block_on(async {
            let service = HttpService::build().h1(site.clone().service());
            let service = service.new_service(()).await.expect("a service");
            let (mut here, there) = UnixStream::pair().expect("a pair of sockets");
            let serving = actix_web::rt::spawn(service.call((there, None)));
            // A server that has said enough may be gone before all is sent.
            let _ = here.write_all(bytes).await;
            let _ = here.shutdown().await;
            let mut answer = Vec::new();
            let _ = here.read_to_end(&mut answer).await;
            // How a connection ended is the parser's business; that it ends is ours.
            let _ = serving.await.expect("the server does not panic");
            answer
        })
    })
}

/// The status codes of an answer.
pub fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let lines = text.split("\r\n").filter(|line| line.starts_with("HTTP/1."));
    lines.filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect()
}
