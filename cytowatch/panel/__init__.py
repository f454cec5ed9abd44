"""The storage panel: the tree in a browser, for those who have neither a shell nor a share."""
