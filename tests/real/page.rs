//! The operator's page in a browser: dark and light, on a desk and on a phone, with what a hostile client says of itself.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    browser::{Browser, Look},
    http,
    images::{self, Blob, Twin},
    registries::{Gateway, Registry},
};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const SCHEMA2: &str = "application/vnd.docker.distribution.manifest.v2+json, \
                       application/vnd.docker.distribution.manifest.list.v2+json, \
                       application/vnd.docker.distribution.manifest.v1+prettyjws";
const ALL: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                   application/vnd.docker.distribution.manifest.v2+json, \
                   application/vnd.docker.distribution.manifest.list.v2+json, */*";
const ON_LINUX: &str = "os/linux arch/amd64";

const LOOKS: [(&str, Look); 4] = [
    ("page-light", Look { scheme: "light", width: 1100, height: 940 }),
    ("page-dark", Look { scheme: "dark", width: 1100, height: 940 }),
    ("page-phone", Look { scheme: "light", width: 390, height: 844 }),
    ("page-phone-dark", Look { scheme: "dark", width: 390, height: 844 }),
];

const SETTLED: &str = "new Promise((done) => {
    const look = () => document.body.dataset.state ? done(document.body.dataset.state) : setTimeout(look, 20);
    look();
})";

/// Text whose colour is too near to what it stands on (WCAG 2, 1.4.3: 4.5 to 1).
const TOO_FAINT: &str = "(() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => channels(colour).slice(0, 3)
        .map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    const ground = (element) => {
        for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor;
            if ((channels(colour)[3] ?? 1) > 0) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const faint = [];
    for (const element of document.body.querySelectorAll('*')) {
        const says = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
        if (!says || element.offsetParent === null) continue;
        const [one, other] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
        const contrast = (one + 0.05) / (other + 0.05);
        if (contrast < 4.5) faint.push(`${element.tagName}.${element.className} ${contrast.toFixed(2)}`);
    }
    return faint;
})()";

fn docker(version: &str) -> String {
    format!("docker/{version} go/go1.7.5 git-commit/89658be kernel/4.9.0 {ON_LINUX}")
}

/// A gateway in front of a registry with a few images, in their modern form and in the one before.
fn gateway() -> (Registry, Gateway) {
    let registry = Registry::docker_registry();
    let image = images::runnable();
    for repository in ["team/billing", "team/frontend", "infra/postgres", "ci/builder"] {
        registry.push(&image, Twin::Oci, repository, "latest");
    }
    let (config, layer) = (Blob::new("{}"), Blob::new("chart"));
    let descriptor =
        |blob: &Blob, kind: &str| json!({ "mediaType": kind, "digest": blob.digest, "size": blob.bytes.len() });
    let chart = json!({
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": descriptor(&config, "application/vnd.cncf.helm.config.v1+json"),
        "layers": [descriptor(&layer, "application/vnd.cncf.helm.chart.content.v1.tar+gzip")],
    });
    for blob in [config, layer] {
        registry.push_blob("charts/billing", &blob);
    }
    assert_eq!(registry.put_manifest("charts/billing", "latest", OCI, chart.to_string().as_bytes()).status, 201);
    registry.push(&image, Twin::Schema2, "infra/legacy-app", "latest");
    let file = format!("[[upstream]]\nname = \"registry\"\nurl = \"http://{}\"\n", registry.address);
    (registry, Gateway::start_with_file(&file, &[]))
}

fn pull(gateway: &Gateway, user_agent: &str, accept: &str, repository: &str, times: usize) {
    let target = format!("/v2/{repository}/manifests/latest");
    let headers = [("User-Agent", user_agent), ("Accept", accept)];
    let sent = if accept.is_empty() { &headers[..1] } else { &headers[..] };
    for _ in 0..times {
        http::ask(gateway.address, "GET", &target, sent, b"").unwrap();
    }
}

/// A working day of a mixed fleet.
fn working_day(gateway: &Gateway) {
    pull(gateway, "containerd/v1.7.28", ALL, "team/billing", 41);
    pull(gateway, "containerd/v2.1.4", ALL, "team/frontend", 67);
    pull(gateway, "skopeo/1.22.2", ALL, "infra/postgres", 3);
    pull(gateway, "cri-o/1.36.3 go/go1.25.1 os/linux arch/amd64", ALL, "infra/legacy-app", 12);
    pull(gateway, &docker("20.10.24"), ALL, "ci/builder", 18);
    pull(gateway, &docker("17.03.2-ce"), SCHEMA2, "ci/builder", 9);
    pull(gateway, &docker("17.03.2-ce"), SCHEMA2, "infra/legacy-app", 4);
    pull(gateway, &docker("1.12.6"), SCHEMA2, "team/frontend", 5);
    pull(gateway, "deploy-tool/0.4", "application/vnd.docker.distribution.manifest.v1+json", "team/billing", 2);
    pull(gateway, "index-reader/2.0", "application/vnd.oci.image.index.v1+json", "infra/postgres", 1);
    pull(gateway, &docker("1.9.1"), "", "team/billing", 6);
    pull(gateway, &docker("1.6.2"), "", "infra/postgres", 2);
    pull(gateway, &docker("1.9.1"), "", "team/payments", 1);
    pull(gateway, &docker("1.9.1"), "", "charts/billing", 1);
}

fn opened(gateway: &Gateway, look: Look) -> Browser {
    let mut browser = Browser::start(look);
    browser.visit(&format!("http://{}/", gateway.admin));
    assert_eq!(browser.evaluate(SETTLED), "shown");
    browser
}

fn assert_well(browser: &mut Browser, what: &str) {
    assert_eq!(browser.complaints(), Vec::<&Value>::new(), "{what}");
    let sticks_out = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.evaluate(sticks_out), 0, "{what} can be scrolled sideways");
    assert_eq!(browser.evaluate(TOO_FAINT), Value::Array(Vec::new()), "{what}");
}

#[test]
fn it_can_be_read_dark_and_light_on_a_desk_and_on_a_phone() {
    let (_registry, gateway) = gateway();
    working_day(&gateway);
    let kept = tempfile::tempdir().unwrap();
    let folder = std::env::var_os("SCREENSHOTS").map_or_else(|| kept.path().to_owned(), PathBuf::from);
    for (name, look) in LOOKS {
        let mut browser = opened(&gateway, look);
        browser.picture(&folder.join(format!("{name}.png")));
        assert_well(&mut browser, name);
        assert_eq!(browser.evaluate("document.querySelectorAll('#clients tbody tr').length"), 13, "{name}");
        let ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 128";
        assert_eq!(browser.evaluate(ground), look.scheme == "dark", "{name}");
        let said = browser.evaluate("document.getElementById('answer').innerText.replaceAll('\\u00a0', ' ')");
        let said = said.as_str().unwrap();
        for name in ["Docker 1.9.1", "Docker 1.6.2", "deploy-tool 0.4", "Docker 17.03.2"] {
            assert!(said.contains(name), "{name} is not in {said}");
        }
    }
}

#[test]
fn it_can_be_sorted_and_filtered() {
    let (_registry, gateway) = gateway();
    working_day(&gateway);
    let mut browser = opened(&gateway, LOOKS[0].1);
    browser.evaluate("document.querySelector('#clients th[data-key=requests] button').click()");
    let column = |place: u8| {
        format!("[...document.querySelectorAll('#clients tbody tr')].map((row) => row.cells[{place}].innerText)")
    };
    let requests = browser.evaluate(&column(5));
    let requests: Vec<u32> =
        requests.as_array().unwrap().iter().map(|text| text.as_str().unwrap().parse().unwrap()).collect();
    assert!(requests.is_sorted_by(|one, next| one >= next) && requests[0] == 67, "{requests:?}");
    let marked = "document.querySelector('#clients th[aria-sort]').dataset.key";
    assert_eq!(browser.evaluate(marked), "requests");
    let choose = |id: &str, value: &str| {
        format!(
            "(() => {{ const it = document.getElementById('{id}'); it.value = '{value}'; it.dispatchEvent(new Event('input')); }})()"
        )
    };
    browser.evaluate(&choose("need", "schema1"));
    let clients =
        "[...document.querySelectorAll('#clients tbody tr th .cell')].map((cell) => cell.firstChild.data).sort()";
    let old = json!(["Docker 1.6.2", "Docker 1.9.1", "Docker 1.9.1", "deploy-tool 0.4"]);
    assert_eq!(browser.evaluate(clients), old);
    browser.evaluate(&choose("find", "TEAM/BILLING docker"));
    assert_eq!(browser.evaluate(clients), json!(["Docker 1.9.1"]));
    browser.evaluate(&choose("find", "nobody"));
    assert_eq!(
        browser.evaluate("document.getElementById('clients-empty').innerText"),
        "No row is as the filters want it."
    );
    assert_well(&mut browser, "the filtered page");
}

#[test]
fn before_anybody_came_it_says_so() {
    let (_registry, gateway) = gateway();
    let mut browser = opened(&gateway, LOOKS[2].1);
    assert_well(&mut browser, "the empty page");
    let said = browser.evaluate("document.body.innerText");
    assert!(said.as_str().unwrap().contains("Nobody has pulled by this gateway yet"), "{said}");
}

/// Each of them would run as soon as it stood in the page as anything but text.
#[test]
fn what_a_client_says_of_itself_does_not_run() {
    let (_registry, gateway) = gateway();
    let hostile = "<script>window.ran=1</script><img/src=x/onerror=window.ran=2>";
    pull(&gateway, &format!("{hostile}/9"), "*/*", "team/billing", 1);
    // No HTTP request can hold these letters in its path as they are.
    let escaped = hostile.replace('<', "%3C").replace('>', "%3E");
    pull(&gateway, "curl/8.5.0", "*/*", &escaped, 1);
    pull(&gateway, "curl/8.5.0", "*/*", &format!("{{\"team\"}}/{escaped}"), 1);
    let mut browser = opened(&gateway, LOOKS[0].1);
    assert_well(&mut browser, "the page with hostile names");
    let shown = browser.evaluate("document.body.innerText");
    let shown = shown.as_str().unwrap();
    assert!(shown.contains("<script>window.ran=1<"), "the client: {shown}");
    assert!(shown.contains("/v2/{\"team\"}/%3Cscript%3Ewindow.ran=1%3C/script%3E"), "the path: {shown}");
    assert_eq!(browser.evaluate("typeof window.ran"), "undefined");
    assert_eq!(browser.evaluate("document.querySelectorAll('main script, main img').length"), 0);
    // Even where it would stand there as more than text, the policy forbids it to run.
    browser.evaluate(
        "try { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 3\">'); } catch {}",
    );
    browser.evaluate("try { const it = document.createElement('script'); it.text = 'window.ran = 4'; document.body.append(it); } catch {}");
    assert_eq!(browser.evaluate("typeof window.ran"), "undefined");
}
