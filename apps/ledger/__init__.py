"""Record memory: changes, links, rejections."""
