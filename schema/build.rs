//! A migration is part of the build as soon as its file is there.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
