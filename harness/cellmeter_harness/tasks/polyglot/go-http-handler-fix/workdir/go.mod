module cellmeter/gohttphandler

go 1.21
