//! Layers and encoders of audio that networks share.
