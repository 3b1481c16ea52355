from caffe_clr.cli.entry import main

main()
