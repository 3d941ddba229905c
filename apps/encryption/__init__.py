"""What is encrypted, with which key: rotation of keys, and the proof from the stored bytes."""
