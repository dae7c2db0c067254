"""What several tests use: brokers, stations, images, fakes, oracles."""
