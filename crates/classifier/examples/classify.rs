//! Classifies a picture: `cargo run -p classifier --example classify tests/handwriting/7-marker.png`

use classifier::{Classifier, Device};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: classify PICTURE")?;
    let classifier = Classifier::pretrained("pretrained-best", &Device::default())?;
    let picture = std::fs::read(path)?;
    let prediction = classifier.classify_picture(&picture)?;
    println!("{} {:.4}", prediction.class(), prediction.probability());
    Ok(())
}
