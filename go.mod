module github.com/zeolite-go/zeolite

go 1.26.8
