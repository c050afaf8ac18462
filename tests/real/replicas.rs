//! Three gateways on one store: the same bytes from each, whoever is asked first, and a digest that one hands out is good at
//! the others, for real clients too.

use std::{net::SocketAddr, path::Path, process::Command, sync::Barrier, thread};

use serde_json::Value;

use crate::{
    clients::signature_policy,
    disguise::disguised_in_turn,
    documents,
    engines::{Containerd, Dockerd, holds_files, reference},
    guises::{Guise, READS_OCI, READS_SCHEMA_1, READS_SCHEMA_2},
    http::Answer,
    images::{self, Image, Twin},
    parents::{AMD64, FILE, Form, Parent},
    programs::{self, run},
    registries::{Gateway, Registry},
    stores::Store,
};

const TAG: &str = "v1";
/// How often the replicas race for each kind of document.
const RACES: usize = 4;
/// How often they race for the signing key, each time on another store.
const KEY_RACES: usize = 5;

/// Something that the registry stores in one form and a client asks for in another.
struct Dish {
    repository: String,
    guise: Guise,
    media_type: &'static str,
}

impl Dish {
    /// One of each kind, all of images that nobody has asked for.
    fn fresh(registry: &Registry, name: &str) -> Vec<Self> {
        let images = [
            (Twin::Oci, READS_SCHEMA_1, documents::PRETTYJWS),
            (Twin::Schema2, READS_SCHEMA_1, documents::PRETTYJWS),
            (Twin::Oci, READS_SCHEMA_2, Twin::Schema2.media_type()),
            (Twin::Schema2, READS_OCI, Twin::Oci.media_type()),
        ];
        let parents = [
            (Form::Index, Twin::Oci, READS_SCHEMA_2, Form::List.media_type()),
            (Form::List, Twin::Schema2, READS_OCI, Form::Index.media_type()),
            (Form::Index, Twin::Oci, READS_SCHEMA_1, documents::PRETTYJWS),
        ];
        let of_images = images.into_iter().enumerate().map(|(number, (twin, guise, media_type))| {
            Self::of_image(registry, format!("{name}/image{number}"), twin, guise, media_type)
        });
        let of_parents = parents.into_iter().enumerate().map(|(number, (form, twin, guise, media_type))| {
            let repository = format!("{name}/parent{number}");
            let parent = Parent { repository: repository.clone(), ..Parent::mixed(form, twin, &repository) };
            parent.push(registry, TAG);
            Self { repository, guise, media_type }
        });
        of_images.chain(of_parents).collect()
    }

    fn of_image(registry: &Registry, repository: String, twin: Twin, guise: Guise, media_type: &'static str) -> Self {
        registry.push(&images::runnable_labelled(&repository), twin, &repository, TAG);
        Self { repository, guise, media_type }
    }

    fn ask(&self, of: SocketAddr, reference: &str) -> Answer {
        self.guise.ask(of, &format!("/v2/{}/manifests/{reference}", self.repository))
    }
}

/// What a client holds: a digest, and the bytes that it stood for.
struct HandedOut<'a> {
    dish: &'a Dish,
    digest: String,
    body: Vec<u8>,
}

impl<'a> HandedOut<'a> {
    fn new(dish: &'a Dish, answer: Answer, media_type: &str) -> Self {
        let what = format!("{} as {}", dish.repository, dish.guise.user_agent);
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some(media_type), "{what}");
        let digest = answer.header("docker-content-digest").unwrap_or_default().to_owned();
        let named = if media_type == documents::PRETTYJWS {
            images::digest(&documents::payload(&answer.body))
        } else {
            images::digest(&answer.body)
        };
        assert_eq!(digest, named, "{what}");
        Self { dish, digest, body: answer.body }
    }

    /// The children that a list or index names, as this gateway serves them.
    fn children(&self, gateway: SocketAddr) -> Vec<Self> {
        let document: Value = serde_json::from_slice(&self.body).unwrap();
        let children = document["manifests"].as_array().into_iter().flatten().map(|child| {
            let (digest, media_type) = (child["digest"].as_str().unwrap(), child["mediaType"].as_str().unwrap());
            Self::new(self.dish, self.dish.ask(gateway, digest), media_type)
        });
        children.collect()
    }

    fn assert_served_by(&self, gateway: SocketAddr) {
        let answer = self.dish.ask(gateway, &self.digest);
        let what = format!("{}@{}", self.dish.repository, self.digest);
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert_eq!(String::from_utf8_lossy(&answer.body), String::from_utf8_lossy(&self.body), "{what}");
    }
}

fn three_on(registry: &Registry, store: &Store) -> [Gateway; 3] {
    std::array::from_fn(|_| Gateway::start_on(registry, store))
}

fn addresses(gateways: &[Gateway]) -> Vec<SocketAddr> {
    gateways.iter().map(|gateway| gateway.address).collect()
}

/// Asks all replicas for the tag, all of them at the same moment.
fn asked_at_once<'a>(dish: &'a Dish, replicas: &[SocketAddr]) -> Vec<HandedOut<'a>> {
    let start = Barrier::new(replicas.len());
    thread::scope(|scope| {
        let asking = replicas.iter().map(|replica| {
            scope.spawn(|| {
                start.wait();
                HandedOut::new(dish, dish.ask(*replica, TAG), dish.media_type)
            })
        });
        let asking = asking.collect::<Vec<_>>();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    })
}

/// The whole promise: the same bytes from each, each other's digests at once, and all of it after all of them are gone.
fn assert_replicas_agree(store: &Store) {
    let registry = Registry::docker_registry();
    let gateways = three_on(&registry, store);
    let replicas = addresses(&gateways);
    let races = (0..RACES).flat_map(|race| Dish::fresh(&registry, &format!("race{race}"))).collect::<Vec<_>>();
    let turns = Dish::fresh(&registry, "turn");
    let mut handed_out = Vec::new();
    for dish in &races {
        handed_out.extend(assert_equal(asked_at_once(dish, &replicas), &replicas));
    }
    for (dish, first) in turns.iter().zip(replicas.iter().cycle()) {
        let one = HandedOut::new(dish, dish.ask(*first, TAG), dish.media_type);
        for replica in &replicas {
            one.assert_served_by(*replica);
        }
        let by_tag = |replica: &SocketAddr| HandedOut::new(dish, dish.ask(*replica, TAG), dish.media_type);
        handed_out.extend(assert_equal(replicas.iter().map(by_tag).collect(), &replicas));
    }
    gateways.into_iter().for_each(Gateway::kill);

    let fresh = Gateway::start_on(&registry, store);
    for one in &handed_out {
        one.assert_served_by(fresh.address);
    }
    assert_commands_see(store, &handed_out);
}

/// The answers of all replicas are one; it comes back, with the children that it names, once each was served by all.
fn assert_equal<'a>(mut answers: Vec<HandedOut<'a>>, replicas: &[SocketAddr]) -> Vec<HandedOut<'a>> {
    let first = answers.swap_remove(0);
    for other in &answers {
        let what = &first.dish.repository;
        assert_eq!(String::from_utf8_lossy(&other.body), String::from_utf8_lossy(&first.body), "{what}");
    }
    let mut all = first.children(replicas[0]);
    all.push(first);
    for one in &all {
        for replica in replicas {
            one.assert_served_by(*replica);
        }
    }
    all
}

/// `schemabridge store` finds what was handed out, and nothing wrong with it.
fn assert_commands_see(store: &Store, handed_out: &[HandedOut]) {
    let listed = store.told(&["ls", "--json"]);
    let recipes = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    for HandedOut { dish, digest, .. } in handed_out {
        let is_listed =
            recipes.iter().any(|recipe| recipe["repository"] == dish.repository && recipe["derived"] == *digest);
        assert!(is_listed, "{}@{digest} is not listed:\n{listed}", dish.repository);
    }
    let counted: Value = serde_json::from_str(&store.told(&["stat", "--json"])).unwrap();
    assert_eq!(counted["recipes of edition 1"]["objects"], recipes.len(), "{counted}");
    assert_eq!(counted["signing key"]["objects"], 1, "{counted}");
    assert_eq!(counted["unknown"], Value::Null, "{counted}");
    let verified = store.told(&["verify"]);
    assert!(verified.contains("all sound"), "{verified}");
}

#[test]
fn three_replicas_on_a_directory_agree() {
    assert_replicas_agree(&Store::directory());
}

#[test]
fn three_replicas_on_a_bucket_of_s3_agree() {
    assert_replicas_agree(&Store::s3());
}

#[test]
fn three_replicas_on_a_container_of_azure_agree() {
    assert_replicas_agree(&Store::azure());
}

/// Nobody has the key that signs schema 1 when all replicas need it at the same moment.
fn assert_one_key(mut store: Store) {
    let registry = Registry::docker_registry();
    let schema2 =
        Dish::of_image(&registry, "key/first".to_owned(), Twin::Oci, READS_SCHEMA_2, Twin::Schema2.media_type());
    for race in 0..KEY_RACES {
        let schema1 = Dish::of_image(&registry, format!("key/{race}"), Twin::Oci, READS_SCHEMA_1, documents::PRETTYJWS);
        let gateways = three_on(&registry, &store);
        let replicas = addresses(&gateways);
        // So that each of them is connected to everything, and none is late.
        asked_at_once(&schema2, &replicas);
        assert_equal(asked_at_once(&schema1, &replicas), &replicas);
        store.renew();
    }
}

#[test]
fn replicas_on_an_empty_directory_sign_with_one_key() {
    assert_one_key(Store::directory());
}

#[test]
fn replicas_on_an_empty_bucket_sign_with_one_key() {
    assert_one_key(Store::s3());
}

/// Three replicas in front of a registry with one image, behind a proxy that sends each request of a client to the next.
struct Stage {
    _registry: Registry,
    _replicas: [Gateway; 3],
    _store: Store,
    image: Image,
    /// The proxy, and the same replicas behind another one, which begins with another of them.
    proxies: [SocketAddr; 2],
    repository: &'static str,
}

impl Stage {
    fn set(store: Store, twin: Twin, guise: Guise) -> Self {
        let (registry, repository) = (Registry::docker_registry(), "test/replicas");
        let image = images::runnable();
        registry.push(&image, twin, repository, TAG);
        let replicas = three_on(&registry, &store);
        let mut in_turn = addresses(&replicas);
        let one = disguised_in_turn(in_turn.clone(), guise);
        in_turn.rotate_left(1);
        let proxies = [one, disguised_in_turn(in_turn, guise)];
        Self { _registry: registry, _replicas: replicas, _store: store, image, proxies, repository }
    }

    /// How a client names the tag where it resolves it.
    fn tagged(&self) -> String {
        reference(self.proxies[0], self.repository, TAG)
    }

    /// How another client names what the first one resolved.
    fn pinned(&self, digest: &str) -> String {
        format!("{}/{}@{digest}", self.proxies[1], self.repository)
    }
}

/// Every way to a derived image, on a directory and on a bucket.
fn each_stage(pull: impl Fn(&Stage, &str)) {
    for (twin, guise) in [(Twin::Oci, READS_SCHEMA_1), (Twin::Oci, READS_SCHEMA_2), (Twin::Schema2, READS_OCI)] {
        for store in [Store::directory(), Store::s3()] {
            let what = format!("{twin:?} as {}", guise.served);
            pull(&Stage::set(store, twin, guise), &what);
        }
    }
}

#[test]
fn skopeo_pulls_by_digest_from_the_next_replica() {
    each_stage(|stage, what| {
        let directory = programs::directory();
        let skopeo = || {
            let mut command = Command::new(programs::debian("skopeo"));
            command.arg("--policy").arg(signature_policy(&directory));
            command
        };
        let inspect = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"];
        let digest = run(skopeo().args(inspect).arg(format!("docker://{}", stage.tagged())));
        let target = directory.path().join("image");
        run(skopeo()
            .args(["copy", "--src-tls-verify=false", "--preserve-digests"])
            .arg(format!("docker://{}", stage.pinned(digest.trim())))
            .arg(format!("dir:{}", target.display())));
        for layer in &stage.image.layers {
            let found = std::fs::read(target.join(images::hexadecimal(&layer.bytes)));
            assert_eq!(found.ok().as_ref(), Some(&layer.bytes), "{what}: {}", layer.digest);
        }
    });
}

#[test]
fn podman_pulls_by_digest_from_the_next_replica() {
    each_stage(|stage, what| {
        let directory = programs::directory();
        let path = |name: &str| directory.path().join(name);
        let policy = signature_policy(&directory);
        let podman = || {
            let mut command = Command::new(programs::debian("podman"));
            command.arg("--root").arg(path("root")).arg("--runroot").arg(path("run")).arg("--tmpdir").arg(path("tmp"));
            command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
            command
        };
        let pull = |reference: &str| {
            let pull = ["pull", "--quiet", "--tls-verify=false", "--signature-policy"];
            run(podman().args(pull).arg(&policy).arg(reference)).trim().to_owned()
        };
        let id = pull(&stage.tagged());
        let digest = run(podman().args(["image", "inspect", "--format", "{{.Digest}}", &id]));
        run(podman().args(["image", "rm", "--force", &id]));
        let id = pull(&stage.pinned(digest.trim()));
        let root = run(podman().args(["image", "mount", &id]));
        assert!(holds_files(Path::new(root.trim())), "{what}: the files are not in {root}");
        run(podman().args(["image", "unmount", &id]));
    });
}

#[test]
fn docker_pulls_by_digest_from_the_next_replica() {
    each_stage(|stage, what| {
        let digest = Dockerd::start().pull(&stage.tagged());
        // Another node, which has nothing of the image.
        let dockerd = Dockerd::start();
        let pinned = stage.pinned(&digest);
        assert_eq!(dockerd.pull(&pinned), digest, "{what}");
        dockerd.assert_files(&pinned, what);
    });
}

#[test]
fn containerd_pulls_by_digest_from_the_next_replica() {
    each_stage(|stage, what| {
        // containerd converts schema 1 and keeps the digest of the result, so that the proxy is asked.
        let target = format!("/v2/{}/manifests/{TAG}", stage.repository);
        let answer = READS_OCI.ask(stage.proxies[0], &target);
        let containerd = Containerd::start();
        containerd.pull(&stage.pinned(answer.header("docker-content-digest").unwrap()));
        containerd.assert_files(what);
    });
}

/// Docker 17.03 asks one replica for the list and the next one for the child that it names.
#[test]
fn docker_pulls_a_derived_list_from_one_replica_and_its_children_from_the_next() {
    for store in [Store::directory(), Store::s3()] {
        let registry = Registry::docker_registry();
        let parent = Parent::mixed(Form::Index, Twin::Oci, "replicas");
        parent.push(&registry, TAG);
        let replicas = three_on(&registry, &store);
        let proxy = disguised_in_turn(addresses(&replicas), READS_SCHEMA_2);
        let dockerd = Dockerd::start();
        let digest = dockerd.pull_for(AMD64, &reference(proxy, &parent.repository, TAG));
        assert_ne!(digest, parent.digest());
        let pinned = format!("{proxy}/{}@{digest}", parent.repository);
        assert_eq!(Dockerd::start().pull_for(AMD64, &pinned), digest);
        let container = dockerd.container(&reference(proxy, &parent.repository, TAG));
        assert_eq!(dockerd.file(&container, FILE).as_ref(), Some(&parent.child(AMD64).text));
    }
}
