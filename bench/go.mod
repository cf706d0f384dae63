// Programs that measure the product. The product never depends on this module.
module github.com/seed94491740/tsnode/bench

go 1.26.3

replace github.com/seed94491740/tsnode => ../

require github.com/seed94491740/tsnode v0.0.0-00010101000000-000000000000
