//! Initial weights depend on the seed alone. The only test of its process: all CPU tensors share one random
//! number generator.

use std::thread;

use burn::tensor::Device;
use model::ConvNetConfig;

#[test]
fn seeded_weights_do_not_depend_on_other_threads() {
    let weights = |seed| {
        let network = ConvNetConfig::default().init_seeded(seed, &Device::default());
        network.unwrap().flatten_parameters().into_data()
    };
    let expected = [weights(7), weights(8)];
    assert_ne!(expected[0], expected[1]);
    let threads: Vec<_> = (0..8)
        .map(|thread| thread::spawn(move || (thread % 2, weights(7 + thread % 2))))
        .collect();
    for thread in threads {
        let (index, found) = thread.join().unwrap();
        assert_eq!(found, expected[index as usize]);
    }
}
